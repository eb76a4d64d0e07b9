"""Steps in, one script out. Only these scripts write on a host; each step checks the state again before it acts."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nornir_k3s import shell
from nornir_k3s.host_steps import install_mark
from nornir_k3s.model.host_spec import Artifact, File, Forget, Gone, HostSpec, Install, Packages, Retired, Unit
from nornir_k3s.model.paths import INSTALLER, PREVIOUS, STATE
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Step
from nornir_k3s.model.urls import shown
from nornir_k3s.records import END, SAY, decoded, read

BUSY = 75  # exit status of a script that another run keeps out
_SOURCES = ("apply/prelude.sh", "apply/steps.sh", "apply/rollback.sh")


def script(steps: Sequence[Step], spec: HostSpec, *, before: str = "") -> Secret:
    """Return the script that carries out these steps; a Secret, because the files in it may contain secrets.

    Arguments:
        steps: In this order. Artefacts must have been pushed before.
        spec: The host's desired state, for the mark of a finished installation.
        before: Shell lines that run first.
    """
    return Secret(_whole(before + "\n".join(_lines(step, spec) for step in steps)))


def restore(unit: str, *, always: bool) -> str:
    """Return the script that restores a server's previous files and restarts its unit; it may run again.

    Arguments:
        unit: The server's.
        always: Restart it even if no file was restored.
    """
    return wrapped("restoring the previous files", shell.call("restore", unit, "yes" if always else "no"))


def restart(unit: str) -> str:
    """Return the script that restarts a unit, and does not wait until it is active."""
    return wrapped(f"unit:{unit}", shell.call("act", unit, "restart", "no", "", ""))


def forget(unit: str, *, trial: bool = False) -> str:
    """Return the script that removes the rollback copies of a server that is ready.

    Arguments:
        trial: Only while the change is on trial: it fails if the host has taken it back.
    """
    check = "still_on_trial\n" if trial else ""
    return wrapped("removing the previous files", f"{check}drop_previous\nrm -f {STATE}/pending/{unit}")


def wrapped(what: str, lines: str) -> str:
    """Return a script of other lines that write on a host, under the same lock as all these scripts."""
    return _whole(f"STEP={shlex.quote(what)}\n{lines}")


def _whole(lines: str) -> str:
    sources = "".join(shell.source(name) for name in _SOURCES)
    return f"STATE={STATE} PREVIOUS={PREVIOUS}\n{SAY}{sources}{lines}\nstep=end\nsay {END}\n"


def _lines(step: Step, spec: HostSpec) -> str:
    return f"STEP={shlex.quote(step.id)}\n{_call(step, spec)}"


def _call(step: Step, spec: HostSpec) -> str:  # noqa: PLR0911 - one line a kind of step
    match step.payload:
        case File() as file:
            return _file(file)
        case Gone() as gone:
            return shell.call("remove", gone.path, gone.unit)
        case Forget():  # done by the script of `forget`
            return 'say did "$STEP" changed'
        case Unit() as unit:
            waits = "no" if spec.install and unit.name == spec.install.unit else "wait"
            return shell.call("act", unit.name, step.action, waits, unit.proof, unit.reload)
        case Retired() as retired:
            return shell.call("retire", retired.name)
        case Artifact() as artifact:
            return _artifact(artifact)
        case Install() as install:
            return shell.call("run_installer", INSTALLER, install.role, install_mark(spec), install.unit)
        case Secret() as text:
            return text.reveal()
        case Packages() as packages:
            return shell.call("install_packages", packages.manager, *packages.names)
        case None:
            raise ValueError(f"step {step.id} has nothing to carry out")


def _file(file: File) -> str:
    encoded = base64.b64encode(file.text.reveal().encode()).decode()
    check = file.check.replace("{}", '"$draft"')
    reader = "" if file.runs else file.unit
    call = shell.call("put", file.path, f"{file.mode:o}", file.owner, file.group, reader, check)
    note = shell.call("note_same", file.path, file.sha256, file.runs) + "\n" if file.runs else ""
    return f"{note}{call} <<'END'\n{encoded}\nEND"


def _artifact(artifact: Artifact) -> str:
    fetch = (
        shell.call("fetch", artifact.url, shown(artifact.url), artifact.path, artifact.sha256) + "\n"
        if artifact.url
        else ""
    )
    return fetch + shell.call("placed", artifact.path, f"{artifact.mode:o}", artifact.sha256)


@dataclass(frozen=True)
class Outcome:
    """The result of a script.

    Arguments:
        changed: The ids of the steps that changed something.
        kept: Copies of files that this tool did not write and has replaced.
        failed: The step that failed.
        journal: The failing unit's last journal lines.
        packages: Versions of the packages that were installed.
        stays: Packages that others need, and that were not removed.
    """

    changed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    failed: str = ""
    journal: str = ""
    packages: Mapping[str, str] | None = None
    stays: tuple[str, ...] = ()


def parse(text: str) -> Outcome:
    """Return the result of a script; the output of one that failed may be incomplete.

    Raises:
        RecordError: The host printed something else.
    """
    records = read(text, whole=False)
    did = (record.take(2) for record in records.get("did", ()))
    failed, journal = records.get("fail"), records.get("journal")
    return Outcome(
        changed=tuple(step for step, how in did if how == "changed"),
        kept=tuple(record.take(2)[1] for record in records.get("kept", ())),
        failed=failed[-1].take(1)[0] if failed else "",
        journal=decoded(journal[-1].take(1)[0]) if journal else "",
        packages={record.take(2)[0]: record[1] for record in records.get("package", ())},
        stays=tuple(record.take(1)[0] for record in records.get("stays", ())),
    )
