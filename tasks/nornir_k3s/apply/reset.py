"""Steps that make a host what it was before this tool came: as its notes there say."""

from __future__ import annotations

import re
from collections.abc import Collection

from nornir_k3s import shell
from nornir_k3s.inventory.rules import networks
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.family import Family, Service
from nornir_k3s.model.host_facts import HostFacts, Made
from nornir_k3s.model.paths import DATASTORE_KEYS, DUMPS, STATE
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Step
from nornir_k3s.roles import datastore, former, load_balancer

_SOURCE = shell.source("apply/removal.sh") + shell.source("apply/reset.sh")
BALANCERS = ("keepalived", "haproxy")  # in the order in which they stop: first the VIP goes


def on_host(cluster: Cluster, facts: HostFacts, *, data_stay: bool) -> list[Step]:
    """Return the steps for all but the datastore; none where nothing else of this tool is left.

    Arguments:
        facts: With `made` and the distribution.
        data_stay: The cluster's data stay, with the passwords of its nodes: a deploy brings the cluster back.
    """
    made, manager = facts.made, facts.family.manager
    steps = [_k3s(cluster, data_stay=data_stay)] if made.k3s else []
    if made.password and not made.k3s and not data_stay:
        steps.append(
            Step("remove", "/etc/rancher/node", "remove the password of the node", payload=_call("forget_password"))
        )
    if not made.state:
        return steps
    services = [one for name in BALANCERS if _is_used(one := facts.family.service(name), made)]
    steps += [_stop(one.unit) for one in services]
    steps += _files([path for path in made.files if not is_datastore(path)], made)
    steps += _copies([path for path in made.copies if not is_datastore(path)])
    stays = has_datastore(facts)
    if services or not stays:
        theirs = _database_packages(facts.family)
        steps += _packages([name for name in made.packages if name not in theirs], services, facts)
    steps += [
        Step("selinux", name, f"turn SELinux' boolean {name} off again", payload=_call("refuse", name))
        for name in made.booleans
    ]
    if stays:
        what = "remove what else this tool has put there, and leave what is of the datastore"
        return [*steps, Step("remove", STATE, what, payload=_call("forget_all", manager, "keep"))] if steps else []
    return [*steps, _forget(manager)]


def of_datastore(cluster: Cluster, facts: HostFacts) -> list[Step]:
    """Return the steps for the datastore of its host: all of it, or what is this cluster's where others use it.

    Arguments:
        facts: With `made`, `database`, `others` and the distribution.
    """
    made, kind, manager = facts.made, datastore.kind(cluster), facts.family.manager
    if cluster.managed.shared:
        return _shared(cluster, facts)
    if not has_datastore(facts):
        return []
    service = facts.family.service(cluster.managed.kind)
    installed = [name for name in made.packages if name in _database_packages(facts.family)]
    files = _files([path for path in made.files if is_datastore(path)], made)
    files += _copies([path for path in made.copies if is_datastore(path)])
    if is_alone(cluster, facts):
        steps = [_stop(service.main, ", and with it the datastore"), *files]
        others = [name for name in made.packages if name not in installed]
        steps += _packages([*installed, *others], [service], facts)
    else:
        users = kind.own_users(cluster, facts.database)
        said = ", ".join([f"database {cluster.managed.database}", *users])
        script = _call("leave_unit", service.main, "run").reveal() + "\n" + kind.drop(cluster, users).reveal()
        steps = [Step("database", "inside", f"drop {said}", payload=Secret(script)), *files]
        ours = set(service.packages[:1]) & set(made.packages)
        why = "has more than this cluster's data" if ours else "was there before"
        payload = _call("keep_running" if ours else "as_before", service.main)
        what = f"restart {service.main}, which {why}"
        steps.append(Step("unit", service.main, what, payload=payload, action="restart"))
    if made.dumps:
        what = f"remove {len(made.dumps)} dump(s) of the datastore"
        steps.append(Step("remove", DUMPS, what, payload=_call("remove_dumps")))
    return [*steps, _forget(manager)]


def _shared(cluster: Cluster, facts: HostFacts) -> list[Step]:
    """Return the steps for a server that others use: nothing else of it was changed."""
    users = datastore.kind(cluster).own_users(cluster, facts.database)
    steps = []
    if facts.database.databases or facts.database.users:
        said = ", ".join([f"database {cluster.managed.database}", *users])
        script = datastore.kind(cluster).drop(cluster, users)
        steps.append(Step("database", "inside", f"drop {said}, and leave what is of others", payload=script))
    if facts.made.dumps:
        what = f"remove {len(facts.made.dumps)} dump(s) of the datastore"
        steps.append(Step("remove", DUMPS, what, payload=_call("remove_dumps")))
    return [*steps, _forget(facts.family.manager)] if facts.made.state else steps


def is_datastore(path: str) -> bool:
    """Return whether a file of this tool belongs to a datastore."""
    return path == DATASTORE_KEYS or (path.startswith(former.OTHERS) and not path.startswith(load_balancer.FOLDERS))


def is_alone(cluster: Cluster, facts: HostFacts) -> bool:
    """Return whether a datastore was installed by this tool, and has nothing but this cluster's data.

    A restore has kept what was there before beside it.
    """
    service, database = facts.family.service(cluster.managed.kind), re.escape(cluster.managed.database)
    ours = re.compile(rf"database {database}_(new|old|verify)(_[0-9a-f]+)?")
    others = [one for one in facts.others if not ours.fullmatch(one.what)]
    if others or service.main in facts.made.shared:
        return False
    return bool(set(service.packages[:1]) & set(facts.made.packages))


def has_datastore(facts: HostFacts) -> bool:
    """Return whether something of a datastore is on this host."""
    made = facts.made
    units = {facts.family.service(kind).main for kind in datastore.KINDS}
    if units & made.stopped:
        return True
    return any(map(is_datastore, made.files)) or bool(set(made.packages) & _database_packages(facts.family))


def _forget(manager: str) -> Step:
    return Step("remove", STATE, f"remove the notes of this tool, {STATE}", payload=_call("forget_all", manager, ""))


def _stop(unit: str, more: str = "") -> Step:
    return Step("unit", unit, f"stop {unit}{more}", payload=_call("leave_unit", unit, "stop"), action="stop")


def _k3s(cluster: Cluster, *, data_stay: bool) -> Step:
    pods = " ".join(map(str, networks(cluster.server, "cluster-cidr", cluster.ip_version)))
    nodes = " ".join(address for member in cluster.members for address in member.addresses)
    what = "uninstall K3s with its own script, and remove what that leaves"
    return Step("remove", "k3s", what, payload=_call("reset_k3s", pods, nodes, "yes" if data_stay else "no"))


def _is_used(service: Service, made: Made) -> bool:
    """Return whether a load balancer's service is there for this tool: installed by it, or with its files."""
    folders = (service.scripts, f"/etc/{service.packages[0]}") if service.packages else ()
    ours = tuple(f"{folder}/" for folder in folders if folder)
    noted = service.unit in made.stopped or bool(set(service.packages[:1]) & set(made.packages))
    return noted or (bool(ours) and any(path.startswith(ours) for path in made.files))


def _files(paths: Collection[str], made: Made) -> list[Step]:
    said = {path: f"put {path} back as it was before" if made.files[path] else f"remove {path}" for path in paths}
    return [Step("remove", path, said[path], payload=_call("give_back_file", path)) for path in sorted(paths)]


def _copies(paths: Collection[str]) -> list[Step]:
    return [
        Step("remove", path, f"put {path} back as it was before", payload=_call("give_back_copy", path))
        for path in paths
    ]


def _packages(names: Collection[str], services: Collection[Service], facts: HostFacts) -> list[Step]:
    """Return the steps that remove packages and what they leave, and bring back the others' units."""
    steps = []
    if names:
        main = [name for name in names if any(name in one.packages for one in services)]
        more = len(names) - len(main)
        what = f"remove the package(s) {', '.join(main or names)}"
        what += f" and {more} that came along" if main and more else ""
        payload = _call("purge", facts.family.manager, *names)
        steps.append(Step("packages", " ".join(names), what, payload=payload))
    for service in services:
        if service.packages[0] in names:
            traces, accounts = " ".join(service.traces), " ".join(service.accounts)
            payload = _call("drop_traces", facts.family.manager, service.packages[0], traces, accounts)
            what = f"remove what {service.packages[0]} leaves: {', '.join((*service.traces, *service.accounts))}"
            steps.append(Step("remove", service.packages[0], what, payload=payload))
        else:
            what = f"restart {service.unit}, if it ran before"
            steps.append(Step("unit", service.unit, what, payload=_call("as_before", service.unit), action="restart"))
    return steps


def _database_packages(family: Family) -> set[str]:
    return {name for kind in datastore.KINDS for name in family.service(kind).packages}


def _call(function: str, *arguments: object) -> Secret:
    return Secret(_SOURCE + shell.call(function, *arguments))
