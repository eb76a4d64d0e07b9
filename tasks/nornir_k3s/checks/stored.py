"""Checks of the data on the host of a managed datastore: no package may begin with an empty database beside them.

Sources: the scripts of Debian's packages (mariadb-server and mysql-server rename data of the other product, the former
also those of a newer version, and begin anew); MySQL's manual, "Upgrade Paths" (no LTS series is skipped), and
`sql/dd/impl/bootstrap/bootstrapper.cc` (the server refuses such data); pg_createcluster(1), pg_upgradecluster(1) (each
major version has clusters of its own); RHEL's postgresql-setup(8) (all of them use one folder).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import Stored
from nornir_k3s.model.family import DEBIAN
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts

NAMES = {"mariadb": "MariaDB", "mysql": "MySQL", "postgresql": "PostgreSQL"}
_PAGE = "docs/datastores.md, New versions"
# Series of MySQL that no upgrade skips.
_LTS = ((8, 0), (8, 4), (9, 7))


def check(cluster: Cluster, host: str, facts: HostFacts) -> Iterator[Finding]:
    """Yield what is wrong between the data on a datastore's host and the server that is, or will be, installed."""
    if cluster.managed.kind == "postgresql":
        yield from _postgresql(host, facts)
        yield from _postgresql_in_place(host, facts)
    elif cluster.managed.kind != "etcd":
        yield from _mysql(cluster.managed.kind, host, facts)


def _postgresql(host: str, facts: HostFacts) -> Iterator[Finding]:
    """Each major version has its own clusters: this tool keeps the one with its settings until its data are moved."""
    if facts.family.service("postgresql").data:
        return
    kept = facts.versions.get("postgresql", "")
    package = facts.packages.get("postgresql") or facts.repositories.candidates.get("postgresql", "")
    package = package.partition("+")[0]
    ours = next((one for one in facts.stored if one.ours == "yes" and one.version == kept), None)
    if ours is None:
        return
    move = f"move them: pg_upgradecluster {kept} main ({_PAGE})"
    found = f"its data are in PostgreSQL {kept} ({ours.folder})"
    if ours.served != "yes":
        remedy = f"install postgresql-{kept}, then {move}; or give the data up: pg_dropcluster {kept} main"
        yield problem(host, "datastore-moved", f"{found}, whose server is not installed", f"postgresql-{kept}", remedy)
    elif package not in ("", kept):
        found, remedy = f"{found}, and the packages are of {package}", f"nothing to do now; when it suits you, {move}"
        yield problem(host, "datastore-version", found, f"PostgreSQL {kept}, while it is installed", remedy, "note")


def _postgresql_in_place(host: str, facts: HostFacts) -> Iterator[Finding]:
    """Where all major versions use one folder, each reads only its own data."""
    service = facts.family.service("postgresql")
    name = service.packages[0]
    package = _upstream(facts.packages.get(name) or facts.repositories.candidates.get(name, ""))
    for one in facts.stored:
        if service.data and one.folder == service.folder and package.partition(".")[0] not in ("", one.version):
            found = f"{_of(one)}; the package {name} is {package}, and reads no other"
            remedy = f"install {name} {one.version}; or move them: postgresql-setup --upgrade; or restore a dump"
            yield problem(host, "datastore-moved", found, f"data of PostgreSQL {package.partition('.')[0]}", remedy)


def _mysql(kind: str, host: str, facts: HostFacts) -> Iterator[Finding]:
    """Yield data that the server cannot read, and those that were put aside for this reason."""
    package = f"{kind}-server"
    version = facts.packages.get(package) or facts.repositories.candidates.get(package, "")
    used = next((one for one in facts.stored if one.served == "yes"), None)
    aside = [one for one in facts.stored if one.served != "yes" and one.ours == "yes"]
    expected = f"data that {NAMES[kind]} {_upstream(version)} can read, or none".replace("  ", " ")
    if used and used.product != kind:
        would = (
            "would move them aside and start with an empty database" if facts.family is DEBIAN else "does not read them"
        )
        found = f"{_of(used)}; the package {package} {would}"
        remedy = f"set `kind: {used.product}`; or dump what is needed, and remove {used.product}-server and these data"
        yield problem(host, "datastore-moved", found, expected, remedy)
    elif used and _number(used.version) > _number(_upstream(version)) > ():
        found = f"{_of(used)}; the package {package} is {_upstream(version)}, and no older one reads them"
        remedy = f"install {package} {_short(used.version)} or newer; or restore a dump"
        yield problem(host, "datastore-moved", found, expected, remedy)
    elif used and kind == "mysql" and (step := _skipped(_number(used.version), _number(_upstream(version)))):
        found = f"{_of(used)}; the package {package} is {_upstream(version)}, and reads none before {step}"
        remedy = f"install {package} {step} first, which upgrades them when it starts; or restore a dump"
        yield problem(host, "datastore-moved", found, expected, remedy)
    elif aside and not (used and used.ours == "yes"):
        found = f"{_of(aside[-1])}, where a package has put them; the database in use has none of this cluster"
        remedy = f"install the version that wrote them, and put them back ({_PAGE}); or remove them"
        yield problem(host, "datastore-moved", found, "the cluster's data in use", remedy)


def _skipped(data: tuple[int, ...], server: tuple[int, ...]) -> str:
    """Return the series of MySQL that must upgrade these data before this server can; nothing if it can, or unknown."""
    step = next((one for one in _LTS if () < data < one < server), ())
    return ".".join(str(number) for number in step)


def _of(stored: Stored) -> str:
    return f"{stored.folder} has the data of {NAMES[stored.product]} {_short(stored.version)}".rstrip()


def _upstream(version: str) -> str:
    """Return the upstream version of a package's: `1:10.11.19-0+deb12u1` is 10.11.19."""
    return re.sub(r"^\d+:", "", version).partition("-")[0].partition("+")[0]


def _short(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _number(version: str) -> tuple[int, ...]:
    """Return the numbers that say whether data can be read: `10.11.19` is 10.11; nothing if unknown."""
    return tuple(int(one) for one in version.split(".")[:2] if one.isdigit())
