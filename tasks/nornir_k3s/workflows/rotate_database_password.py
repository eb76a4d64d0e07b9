"""Rotate the password of the managed datastore: a new user is made, servers take it one at a time, the old one goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s import k3s
from nornir_k3s.errors import Declined, UsageError
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.report import Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.model.together import few
from nornir_k3s.phases import window
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import locks
from nornir_k3s.workflows import plan as plans
from nornir_k3s.workflows.deploy import deploy

NAME = "datastore-password"  # its file in the state folder


def plan(
    nr: Nornir, *, base: Path | str | None, state: Path | str | None, options: Mapping[str, Any] | None
) -> Rotation:
    """Return what `rotate` would do; nothing is changed.

    Raises:
        K3sError: As `rotate` does before its first change.
    """
    arguments = {"base": base, "state": state, "options": options}
    return _planned(nr, _look(nr, arguments, Choice()), arguments)


def rotate(
    nr: Nornir,
    *,
    base: Path | str | None,
    state: Path | str | None,
    options: Mapping[str, Any] | None,
    ignore_window: bool,
    confirm: Callable[[Rotation], bool] | None,
) -> Report:
    """Make a new password, and deploy it.

    Raises:
        UsageError: There is no such password, or it is not ours to make; nothing was changed.
        OutsideWindow: K3s may not restart now; nothing was changed.
        K3sError: As `deploy` does.
    """
    arguments: dict[str, Any] = {"base": base, "state": state, "options": options}
    choice = Choice(ignore_window=ignore_window)
    run = _look(nr, arguments, choice)
    window.require_open(run, [member.name for member in run.cluster.of("servers")])
    found = _planned(nr, run, arguments)
    if confirm and not confirm(found):
        raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes rotates without asking")
    with locks.deploy_lock(run.store.folder):
        run.store.write(NAME, k3s.new_token().reveal() + "\n")
    return deploy(nr, **arguments, choice=choice)


def _look(nr: Nornir, arguments: Mapping[str, Any], choice: Choice) -> Run:
    """Return a run that has read no host yet.

    Raises:
        UsageError: There is nothing to rotate, or a host that needs the password is not in this inventory.
    """
    folders = paths.of(nr, arguments["base"], arguments["state"])
    given: dict[str, Any] = {"options": arguments["options"] or {}, "choice": choice, "keep": False}
    run = gather.prepare(nr, base=folders.base, state=folders.state, artifacts=False, **given)
    if away := [name for name in sorted(run.away) if {"servers", "datastore"} & set(run.member(name).roles)]:
        text = f"{few(away)}: not in this inventory: the datastore and all servers get the new password"
        raise UsageError(text, hint="nothing was changed; run it with the whole inventory")
    if problem := _refusal(run.cluster):
        raise UsageError(problem, hint="nothing was changed")
    if run.store.read(NAME) is None:
        raise UsageError("the cluster has no password of its datastore yet", hint="nornir-k3s deploy makes it")
    return run


def _refusal(cluster: Cluster) -> str:
    where = "change the secret there, then run deploy: servers get it one at a time"
    if not cluster.is_managed:
        return f"the datastore is external: the inventory says where its password is; {where}"
    if cluster.managed.kind == "etcd":
        return "etcd has client certificates, and no password"
    if cluster.managed.password is not None:
        return f"datastore.password of the inventory refers to the password; {where}"
    return ""


def _planned(nr: Nornir, run: Run, arguments: Mapping[str, Any]) -> Rotation:
    """Return the plan of a deploy with another password."""
    options = {**(arguments["options"] or {}), "fresh": (NAME,)}
    choice = Choice(ignore_window=run.ignore_window)
    deployed = plans.plan(nr, base=arguments["base"], state=arguments["state"], options=options, choice=choice)
    found = Rotation(cluster=run.cluster.name, what="database-password")
    found.add(["controller"], f"make a new password, {run.store.folder / NAME}")
    found.add_deploy(deployed)
    found.add([member.name for member in run.cluster.of("datastore")], "remove the user with the old password")
    return found
