"""What differs between families of distributions, as data: packages, units, paths, and what SELinux must let through.

Sources: os-release(5); the packages of Debian, Ubuntu and RHEL 9; their unit files; haproxy_selinux(8) (the port of the
API is none of its own), keepalived_selinux(8) (programs that it runs); PostgreSQL's manual, "Setting Parameters".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

# What keepalived 2.3 writes when it starts, for iproute2 (github.com/acassen/keepalived/issues/2503).
ADDRESS_PROTOCOL = "/etc/iproute2/rt_addrprotos.d/keepalived.conf"


@dataclass(frozen=True)
class Service:
    """A service as a family packages it; all empty where it does not.

    Arguments:
        packages: All that it needs; the first one is its own.
        unit: Its unit. Here and in paths, `{version}` is the version of its package.
        folder: Where its certificates and other files lie.
        config: The configuration file that this tool writes.
        data: A folder that `initialize` must have made before; empty where the package or the unit does so.
        initialize: The command that makes it.
        socket: Where it takes commands.
        scripts: Where programs lie that it runs.
        booleans: SELinux' booleans that must be on.
        traces: Folders and files that its packages leave when they are removed.
        accounts: Users and groups that they leave.
    """

    packages: tuple[str, ...] = ()
    unit: str = ""
    folder: str = ""
    config: str = ""
    data: str = ""
    initialize: str = ""
    socket: str = ""
    scripts: str = ""
    booleans: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()

    def at(self, version: str) -> Service:
        """Return it with this version in its paths."""
        unit, folder, config = (text.format(version=version) for text in (self.unit, self.folder, self.config))
        return replace(self, unit=unit, folder=folder, config=config)

    @property
    def needs_version(self) -> bool:
        """Whether its paths depend on the version of its package."""
        return "{version}" in self.folder

    @property
    def main(self) -> str:
        """Its unit, or the one that all its instances are part of."""
        name, at, _ = self.unit.partition("@")
        return f"{name}.service" if at else name

    @property
    def instances(self) -> str:
        """Its unit, as a pattern for any of its instances."""
        name, at, _ = self.unit.partition("@")
        return f"{name}@*.service" if at else name


@dataclass(frozen=True)
class Family:
    """A family of distributions.

    Arguments:
        name: For messages.
        ids: Those of os-release's ID and ID_LIKE that mean it.
        manager: Its package manager.
        sources: Where the sources of packages are configured.
        repair: What to do about packages that an interrupted installation left, and whether a person must do it.
        services: By the kind of the datastore, or by name.
    """

    name: str
    ids: frozenset[str]
    manager: str
    sources: str
    repair: str
    by_person: bool
    services: Mapping[str, Service] = field(repr=False)

    def service(self, name: str) -> Service:
        """Return one of its services; an empty one if it has no package for it."""
        return self.services.get(name, Service())


DEBIAN = Family(
    name="Debian and Ubuntu",
    ids=frozenset(("debian", "ubuntu")),
    manager="apt",
    sources="/etc/apt/sources.list.d",
    repair="nothing to do: deploy runs `dpkg --configure -a` first",
    by_person=False,
    services={
        "mariadb": Service(
            packages=("mariadb-server",),
            unit="mariadb.service",
            folder="/etc/mysql",
            config="/etc/mysql/mariadb.conf.d/90-nornir-k3s.cnf",
            traces=("/var/lib/mysql", "/etc/mysql", "/var/log/mysql"),
            accounts=("mysql",),
        ),
        "mysql": Service(
            packages=("mysql-server",),
            unit="mysql.service",
            folder="/etc/mysql",
            config="/etc/mysql/mysql.conf.d/zz-nornir-k3s.cnf",  # after mysqld.cnf
            traces=("/var/lib/mysql", "/var/lib/mysql-files", "/var/lib/mysql-keyring", "/etc/mysql", "/var/log/mysql"),
            accounts=("mysql",),
        ),
        "postgresql": Service(
            packages=("postgresql",),
            unit="postgresql@{version}-main.service",
            folder="/etc/postgresql/{version}/main",
            config="/etc/postgresql/{version}/main/conf.d/90-nornir-k3s.conf",
            traces=("/var/lib/postgresql", "/etc/postgresql", "/etc/postgresql-common", "/var/log/postgresql"),
            accounts=("postgres", "ssl-cert"),
        ),
        "etcd": Service(
            packages=("etcd-server", "etcd-client"),
            unit="etcd.service",
            folder="/etc/nornir-k3s-etcd",
            config="/etc/default/etcd",
            traces=("/var/lib/etcd", "/etc/nornir-k3s-etcd"),
            accounts=("etcd",),
        ),
        "haproxy": Service(
            packages=("haproxy",),
            unit="haproxy.service",
            socket="/run/haproxy/admin.sock",
            traces=("/var/lib/haproxy", "/etc/haproxy"),
            accounts=("haproxy",),
        ),
        "keepalived": Service(
            packages=("keepalived",),
            unit="keepalived.service",
            scripts="/etc/keepalived",
            traces=("/etc/keepalived", ADDRESS_PROTOCOL),
        ),
    },
)
# Clients are named: without weak dependencies a server may come without. Its etcd is no package of RHEL's own.
RHEL = Family(
    name="the RHEL 9 family",
    ids=frozenset(("rhel", "centos", "rocky", "almalinux", "ol")),
    manager="dnf",
    sources="/etc/yum.repos.d",
    repair="run `dnf check`, then `dnf remove --duplicates`",
    by_person=True,
    services={
        "mariadb": Service(
            packages=("mariadb-server", "mariadb"),
            unit="mariadb.service",
            folder="/etc/my.cnf.d",
            config="/etc/my.cnf.d/zz-nornir-k3s.cnf",  # after mariadb-server.cnf
            traces=("/var/lib/mysql", "/var/log/mariadb"),
            accounts=("mysql",),
        ),
        "mysql": Service(
            packages=("mysql-server", "mysql"),
            unit="mysqld.service",
            folder="/etc/my.cnf.d",
            config="/etc/my.cnf.d/zz-nornir-k3s.cnf",  # after mysql-server.cnf
            traces=("/var/lib/mysql", "/var/lib/mysql-files", "/var/lib/mysql-keyring", "/var/log/mysql"),
            accounts=("mysql",),
        ),
        "postgresql": Service(
            packages=("postgresql-server", "postgresql"),
            unit="postgresql.service",
            folder="/var/lib/pgsql/data",
            config="/var/lib/pgsql/data/postgresql.conf",
            data="/var/lib/pgsql/data/PG_VERSION",
            initialize="postgresql-setup --initdb",
            traces=("/var/lib/pgsql",),
            accounts=("postgres",),
        ),
        # Perl, which sends HAProxy commands, is part of a minimal installation of Debian only.
        "haproxy": Service(
            packages=("haproxy", "perl-interpreter", "perl-IO", "perl-Socket", "perl-Time-HiRes"),
            unit="haproxy.service",
            socket="/var/lib/haproxy/stats",
            booleans=("haproxy_connect_any",),
            traces=("/var/lib/haproxy", "/etc/haproxy"),
            accounts=("haproxy",),
        ),
        "keepalived": Service(
            packages=("keepalived",),
            unit="keepalived.service",
            scripts="/usr/libexec/keepalived",
            traces=("/etc/keepalived", "/usr/libexec/keepalived", ADDRESS_PROTOCOL),
        ),
    },
)
FAMILIES = (DEBIAN, RHEL)


def of(distribution: Collection[str], managers: Collection[str]) -> Family | None:
    """Return the family of a host; None if it is none of FAMILIES.

    Arguments:
        distribution: os-release's ID and ID_LIKE.
        managers: Its package managers, for a distribution that names no family.
    """
    named = (family for family in FAMILIES if family.ids & set(distribution))
    return next(named, None) or next((family for family in FAMILIES if family.manager in managers), None)


def every(name: str) -> list[Service]:
    """Return a service as each family has it."""
    return [family.services[name] for family in FAMILIES if name in family.services]
