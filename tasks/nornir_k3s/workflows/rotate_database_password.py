"""Rotate the password of the managed datastore: a new user is made, servers take it one at a time, the old one goes."""

from __future__ import annotations

from nornir_k3s import k3s
from nornir_k3s.errors import UsageError
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.report import Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.model.together import few
from nornir_k3s.phases import window
from nornir_k3s.phases.changing import changing
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.state import database_password
from nornir_k3s.state.database_password import NAME
from nornir_k3s.workflows import plan as plans
from nornir_k3s.workflows.deploy import deploy
from nornir_k3s.workflows.rotation_request import Request


def plan(request: Request) -> Rotation:
    """Return what `rotate` would do; nothing is changed.

    Raises:
        K3sError: As `rotate` does before its first change.
    """
    return _planned(_look(request), request)


def rotate(request: Request) -> Report:
    """Make a new password, and deploy it.

    Raises:
        UsageError: There is no such password, or it is not ours to make; nothing was changed.
        OutsideWindow: K3s may not restart now; nothing was changed.
        K3sError: As `deploy` does.
    """
    run = _look(request)
    window.require_open(run, [member.name for member in run.cluster.of("servers")])
    request.require_confirmed(_planned(run, request))
    with changing(run, "rotate") as lock:
        lock.require(run)  # before the state folder gets another password
        database_password.replace(run.store, k3s.new_token())
        return deploy(request.nr, **request.arguments(), choice=request.choice)


def _look(request: Request) -> Run:
    """Return a run that knows the password as it is now.

    Raises:
        UsageError: There is nothing to rotate, or a host that needs the password is not in this inventory.
    """
    run = request.prepare()
    if away := [name for name in sorted(run.away) if {"servers", "datastore"} & set(run.member(name).roles)]:
        text = f"{few(away)}: not in this inventory: the datastore and all servers get the new password"
        raise UsageError(text, hint="nothing was changed; run it with the whole inventory")
    if problem := _refusal(run.cluster):
        raise UsageError(problem, hint="nothing was changed")
    spare = run.agents(run.present)  # they need no password: the deploy goes on without those that are down
    gather.gather_facts(run, lenient=spare)  # another controller may have rotated it
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


def _planned(run: Run, request: Request) -> Rotation:
    """Return the plan of a deploy with another password."""
    deployed = plans.plan(request.nr, **request.arguments(fresh=(NAME,)), choice=request.choice)
    found = Rotation(cluster=run.cluster.name, what="database-password")
    found.add(["controller"], f"make a new password, {run.store.folder / NAME}")
    found.add_deploy(deployed)
    found.add([member.name for member in run.cluster.of("datastore")], "remove the user with the old password")
    return found
