"""Limits: the thresholds of a drift check."""

from __future__ import annotations

from pydantic import Field

from nornir_k3s.model.value_types import Strict


class Limits(Strict):
    """The thresholds above, or below, which a value counts as drift."""

    certificate_days: int = Field(30, ge=1, le=3650, description="a certificate that expires within so many days")
    idle_seconds: float = Field(
        65,
        gt=0,
        le=600,
        description="with --deep: an external load balancer that closes an idle connection earlier, in s",
    )
    latency_ms: float = Field(20, gt=0, description="a longer round trip to the datastore, in ms")
    connections_percent: int = Field(80, ge=1, le=100, description="connections of the datastore in use")
    rows: int = Field(1_000_000, ge=1, description="rows of K3s' table in a database")
    table_mib: int = Field(4096, ge=0, description="size of K3s' table, or of etcd's data, in MiB")
    backup_days: float = Field(7, gt=0, description="age of the last backup, where there is one, in days")
    revisions: int = Field(100_000, ge=1, description="revisions since the last compaction")
