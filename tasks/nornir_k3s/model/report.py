"""The report of a run, as `deploy` returns it and `--json` writes it; documented in docs/report.md."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from nornir_k3s.errors import K3sError
from nornir_k3s.model.finding import Finding

FORMAT = 2
Outcome = Literal["running", "ok", "failed", "interrupted", "declined", "postponed"]


class _Record(BaseModel):
    model_config = ConfigDict(validate_assignment=False)


class HostReport(_Record):
    """What happened on one host."""

    role: str = Field(description="datastore, servers, agents or lb; of a host with several, that of its K3s")
    roles: list[str] = Field(default_factory=list, description="all its roles")
    changes: list[str] = Field(default_factory=list, description="ids of the changes that were made, as in the plan")
    restarts: list[str] = Field(default_factory=list, description="units that were started, restarted or reloaded")
    kept: list[str] = Field(default_factory=list, description="copies of replaced files that this tool had not written")
    restored: list[str] = Field(
        default_factory=list, description="files that were restored because the host did not get ready"
    )
    round_trips: int = Field(0, description="commands sent one after the other, connecting not counted")
    error: str | None = Field(None, description="its error, without secrets")

    @computed_field(description="whether anything was changed")
    @property
    def changed(self) -> bool:
        """Whether anything was changed."""
        return bool(self.changes)

    @computed_field(description="whether it has an error")
    @property
    def failed(self) -> bool:
        """Whether it has an error."""
        return self.error is not None


class PhaseReport(_Record):
    """What happened in one phase."""

    name: str
    state: Literal["done", "nothing to do", "failed", "interrupted", "not begun"] = "not begun"
    seconds: float = 0.0
    hosts: list[str] = Field(default_factory=list, description="the hosts it had work on")


class ErrorReport(_Record):
    """Why a run failed."""

    kind: str = Field(description="the error's class; docs/errors.md has a section of this name")
    message: str
    next: str = Field(description="what to do")


class WayBack(_Record):
    """How to go back over an upgrade: K3s is not downgraded without its datastore's content from before."""

    version: str = Field(description="K3s version that the cluster had")
    dump: str = Field(
        "", description="where the dump is: HOST:PATH, a file on this machine, or what `datastore.dump_command` printed"
    )
    restore: str = Field("", description="the command that restores the dump, with K3s stopped on all servers")

    def __str__(self) -> str:
        """Return it as a sentence."""
        if not self.dump:
            return f"the way back to {self.version}: within the minor version only, because there is no dump"
        if self.restore.startswith("nornir-k3s "):  # it stops K3s itself, and deploys
            return f"the way back to {self.version}: write `version: {self.version}`, then `{self.restore}`"
        how = f": {self.restore}" if self.restore else ""
        return (
            f"the way back to {self.version}: stop K3s on all servers, restore {self.dump}{how}, write `version: "
            f"{self.version}`, deploy (docs/upgrade.md)"
        )


class Report(_Record):
    """What happened in one run over one cluster."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    version: str = Field("", description="K3s version the inventory asks for")
    url: str = Field("", description="the fixed registration address")
    started: datetime = Field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0
    outcome: Outcome = "running"
    dry_run: bool = Field(False, description="nothing was changed; `changes` are the planned ones")
    exit_code: int = 0
    kubeconfig: Path | None = None
    log: Path | None = Field(None, description="the run's debug log on the controller")
    hosts: dict[str, HostReport] = Field(default_factory=dict)
    skipped: list[str] = Field(default_factory=list, description="hosts that are down and were left out")
    phases: list[PhaseReport] = Field(default_factory=list)
    way_back: WayBack | None = Field(None, description="of an upgrade: what leads back")
    findings: list[Finding] = Field(default_factory=list, description="of the preflight, errors and warnings")
    notes: list[str] = Field(default_factory=list, description="what else an operator should know")
    error: ErrorReport | None = None

    @computed_field(description="whether anything was changed on any host")
    @property
    def changed(self) -> bool:
        """Whether anything was changed on any host."""
        return any(host.changes for host in self.hosts.values())

    def phase(self, name: str) -> PhaseReport:
        """Return the report of one phase."""
        return next(phase for phase in self.phases if phase.name == name)

    def end(self, error: K3sError | None, outcome: Outcome) -> None:
        """Note how it ended."""
        self.seconds = round((datetime.now(UTC) - self.started).total_seconds(), 3)
        self.outcome = outcome
        if error is not None:
            self.exit_code = error.exit_code
        if error is not None and outcome != "declined":
            self.error = ErrorReport(kind=type(error).__name__, message=error.message, next=error.hint)
