"""The user's own command that dumps an external datastore, run on the controller before K3s is replaced.

Everything that it needs to log in is in its environment, by the names that the databases' own clients read: nothing is
in its arguments. Sources: mariadb.com and dev.mysql.com, environment variables; PostgreSQL's manual, `libpq-envars`;
etcd `etcdctl/README.md`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from nornir_k3s.errors import Interrupted, K3sError
from nornir_k3s.model import masking
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.secret import Secret
from nornir_k3s.run.context import Run

_HINT = "nothing was changed: correct `datastore.dump_command`, then run deploy again"


def environment(cluster: Cluster) -> dict[str, str]:
    """Return the variables that say which datastore it is, and log in to it; some are secret."""
    if cluster.endpoint is None:
        return {}
    endpoint = parse(cluster.endpoint)
    (host, port), *_ = endpoint.hosts
    found = {"K3S_CLUSTER": cluster.name, "DATASTORE_KIND": endpoint.kind}
    files = {key: str(getattr(cluster.datastore, key, None) or "") for key in ("cafile", "certfile", "keyfile")}
    if endpoint.kind == "etcd":
        scheme = "https" if endpoint.tls else "http"
        names = {"ETCDCTL_CACERT": "cafile", "ETCDCTL_CERT": "certfile", "ETCDCTL_KEY": "keyfile"}
        found |= {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": f"{scheme}://{_bracketed(host)}:{port}"}
        return found | {name: files[key] for name, key in names.items() if files[key]}
    login = {"HOST": host, "PORT": str(port), "DATABASE": endpoint.database, "USER": endpoint.user}
    login["PASSWORD"] = endpoint.password.reveal()
    found |= {f"DATASTORE_{name}": value for name, value in login.items()}
    found |= {f"DATASTORE_{key.upper()}": path for key, path in files.items() if path}
    if endpoint.kind == "mysql":
        return found | {"MYSQL_HOST": host, "MYSQL_TCP_PORT": str(port), "MYSQL_PWD": login["PASSWORD"]}
    found |= {f"PG{name}": login[name] for name in ("USER", "DATABASE", "PASSWORD")}
    hosts, ports = zip(*endpoint.hosts, strict=True)  # of several, libpq takes the first that answers
    found |= {"PGHOST": ",".join(hosts), "PGPORT": ",".join(map(str, ports))}
    names = {"PGSSLROOTCERT": "cafile", "PGSSLCERT": "certfile", "PGSSLKEY": "keyfile"}
    found |= {name: files[key] for name, key in names.items() if files[key]}
    mode = endpoint.parameters.get("sslmode") or ("verify-full" if files["cafile"] else "")
    return found | ({"PGSSLMODE": mode} if mode else {})


def dump(run: Run, command: Sequence[str], *, hint: str = _HINT) -> str:
    """Dump the external datastore of a run's cluster with the user's command; return where it says that the dump is.

    Arguments:
        command: A program and its arguments.
        hint: What to do where it fails.

    Raises:
        K3sError: It cannot be started, failed, or took longer than `deadlines.dump`.
        Interrupted: The run was stopped.
    """
    return carry_out(
        command,
        environment(run.cluster),
        folder=run.store.base,
        secrets=run.cluster.secrets(),
        deadline=run.deadlines["dump"],
        stop=run.stop or threading.Event(),
        hint=hint,
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def carry_out(
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    folder: Path,
    secrets: Sequence[Secret],
    deadline: float,
    stop: threading.Event,
    stdin: IO[bytes] | None = None,
    what: str = "the dump command",
    hint: str = _HINT,
) -> str:
    """Run the command and return the last line that it printed, which is where the dump is.

    Arguments:
        variables: Added to its environment.
        folder: It runs there.
        secrets: Masked in what it printed.
        deadline: Seconds.
        stop: Ends it.
        stdin: What it reads; nothing by default.
        what: What it is, for messages.
        hint: What to do where it fails.

    Raises:
        K3sError: It cannot be started, failed, or took too long.
        Interrupted: The stop event was set.
    """
    name = f"{what} {command[0]}"
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **variables},
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # so that what it has started ends with it
        )
    except OSError as error:
        raise K3sError(f"{name} cannot be started: {error.strerror}", hint=hint) from None
    left = deadline
    while True:
        try:
            out, err = process.communicate(timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            left -= 0.2
            if stop.is_set() or left <= 0:
                _end(process)
                if stop.is_set():
                    raise Interrupted(f"stopped in {name}", hint="run it again: nothing was changed") from None
                raise K3sError(f"{name} took longer than {deadline:.0f} s", hint=hint) from None
        except BaseException:
            _end(process)
            raise
    out, err = (masking.without(text, secrets).strip() for text in (out, err))
    if process.returncode:
        lines = "\n".join(f"    {line}" for line in (err or out).splitlines()[-5:])
        raise K3sError(f"{name} ended with status {process.returncode}\n{lines}".rstrip(), hint=hint)
    return out.splitlines()[-1].strip() if out else ""


def _end(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
            return
