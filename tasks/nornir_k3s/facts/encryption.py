"""The keys of secrets on a server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nornir_k3s import k3s
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model import encryption
from nornir_k3s.model.paths import KEYS_NOTE
from nornir_k3s.records import Record, integer


class Encryption(Fact[encryption.Encryption]):
    """The hash of the file with the keys, and what is being done to them (k3s: pkg/secretsencrypt/config.go)."""

    name, source, roles = "encryption", "encryption", ("servers",)

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Read K3s' data folder, and this tool's note."""
        return (k3s.DATA, KEYS_NOTE)

    def parse(self, records: Sequence[Record]) -> encryption.Encryption:
        """Return what the files say."""
        sha256, stage, first, written, goal, provider = records[0].take(6)
        return encryption.Encryption(sha256, stage, first == "key", integer(written), goal, provider)
