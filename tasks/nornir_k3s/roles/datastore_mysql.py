"""The desired state of a MariaDB or MySQL that this tool sets up.

Sources: docs.k3s.io `datastore/datastore.md`; kine `pkg/drivers/mysql`; go-sql-driver/mysql's DSN grammar; MariaDB
`FLUSH SSL`, MySQL `ALTER INSTANCE RELOAD TLS` (certificates are read again without a restart).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nornir_k3s import shell
from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.dump import Recipe
from nornir_k3s.model.endpoint import Endpoint, build
from nornir_k3s.model.family import Service
from nornir_k3s.model.host_spec import HEADER, File, HostSpec, Unit
from nornir_k3s.model.paths import DATASTORE_KEYS
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import mysql_password
from nornir_k3s.roles.datastore_login import connections, login, logins

PORT = 3306
RIGHTS = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP"


@dataclass(frozen=True)
class MySQL:
    """MariaDB or MySQL: commands and differences.

    Arguments:
        settings: Lines in it that only this kind has.
        client: The command-line client, which root may use without a password.
        flush: SQL that reads the certificates again.
        stored: What the server stores of a password, to set and compare it.
        identified: How SQL sets it; `{}` is what is stored.
        dumper: The dump command.
    """

    client: str
    flush: str
    stored: Callable[[Secret], str]
    identified: str
    dumper: str
    settings: tuple[str, ...] = ()
    ports: tuple[int, ...] = (PORT,)

    def endpoint(self, cluster: Cluster) -> Secret:
        """Return K3s' endpoint string."""
        address = (cluster.of("datastore")[0].address, PORT)
        password, database = cluster.datastore_password, cluster.managed.database
        return build(Endpoint("mysql", (address,), login(cluster), password, database))

    def spec(self, cluster: Cluster, member: Member, service: Service) -> HostSpec:
        """Return the desired state of the host; of one that others use, only that it runs."""
        if cluster.managed.shared:
            return HostSpec(packages=service.packages, units=(Unit(service.unit),))
        lines = [
            "[mysqld]",
            f"bind-address = {member.address}",
            f"port = {PORT}",
            "auto_increment_increment = 1",
            "skip_name_resolve = ON",
            *self.settings,
        ]
        keys: list[File] = []
        if cluster.keys:
            pair = cluster.keys.hosts[member.name]
            texts = {"ca": Secret(cluster.keys.ca), "cert": Secret(pair.certificate), "key": pair.key}
            lines += [f"ssl_{name} = {_pem(service, name)}" for name in texts]
            keys = [
                File(_pem(service, name), text, 0o640, masking="all", unit=service.unit, action="reload", group="mysql")
                for name, text in texts.items()
            ]
            keys.append(File(DATASTORE_KEYS, cluster.keys.text, 0o600, masking="all"))
        config = File(service.config, Secret(HEADER + "\n".join(lines) + "\n"), unit=service.unit)
        # A setting in a file that is read later would keep it from the network.
        proof = shell.call("listens", member.address, PORT)
        limit = connections(cluster)
        running = Secret(f"{HEADER}[mysqld]\nmax_connections = {limit}\n")
        # Its own file, so that the server need not restart when servers come or go.
        live = File(service.config.removesuffix(".cnf") + "-live.cnf", running, unit=service.unit, action="reload")
        sql = [f"SET GLOBAL max_connections = {limit}", *([self.flush] if keys else [])]
        unit = Unit(service.unit, reloadable=True, proof=proof, reload=f"{self.client} -e '{'; '.join(sql)}'")
        return HostSpec(packages=service.packages, files=(*keys, config, live), units=(unit,))

    def missing(self, cluster: Cluster, content: Database) -> list[str]:
        """Return what the database lacks."""
        found = [] if content.databases else [f"database {cluster.managed.database}"]
        for server in cluster.of("servers"):
            account = f"{login(cluster)}@{server.address}"
            if account not in content.users:
                found.append(f"user {account}")
            elif not content.users[account]:
                found.append(f"password of {account}")
            if account not in content.grants:
                found.append(f"rights of {account}")
        return found

    def prepare(self, cluster: Cluster) -> Secret:
        """Return a script that creates database, users and rights; it may run again.

        A user may log in from one server's address only, and its name depends on its password: so the old user works
        until the last server has the new one.
        """
        database, tls = cluster.managed.database, " REQUIRE SSL" if cluster.keys else " REQUIRE NONE"
        identified = self.identified.format(self.stored(cluster.datastore_password))
        lines = []
        for server in cluster.of("servers"):
            account = f"'{login(cluster)}'@'{server.address}'"
            lines.append(f"CREATE USER IF NOT EXISTS {account} {identified};")
            lines.append(f"ALTER USER {account} {identified}{tls};")
            lines.append(f"GRANT {RIGHTS} ON `{database}`.* TO {account};")
        # Last: a run that was killed never leaves a database that looks like somebody else's.
        return self._statements([*lines, f"CREATE DATABASE IF NOT EXISTS `{database}`;"])

    def dump(self, cluster: Cluster, member: Member) -> Recipe:  # noqa: ARG002 - as every kind
        """Return how to dump the database."""
        return self.recipe(cluster.managed.database)

    def recipe(self, database: str) -> Recipe:
        """Return the same for a database of this name."""
        restore = f"zcat FILE | {self.client} {database}"
        replace = shell.call("replace_mysql", self.client, database)
        verify = f"verify_mysql {self.client} {database} {self.dumper}"
        return Recipe("sql.gz", f"size_mysql {self.client}", f"write_mysql {self.dumper}", restore, replace, verify)

    def obsolete_users(self, cluster: Cluster, content: Database) -> list[str]:
        """Return the users that no server needs any more: of earlier passwords and of removed servers."""
        wanted = {f"{login(cluster)}@{server.address}" for server in cluster.of("servers")}
        left = {member.address for member in cluster.left}  # with whichever password
        ours = set(self.own_users(cluster, content))
        return [name for name in content.users if name in ours - wanted and name.rpartition("@")[2] not in left]

    def tidy(self, users: Sequence[str]) -> Secret:
        """Return a script that removes these users."""
        names = [name.rpartition("@") for name in users]
        return self._statements([f"DROP USER IF EXISTS '{user}'@'{host}';" for user, _, host in names])

    def own_users(self, cluster: Cluster, content: Database) -> list[str]:
        """Return the users of this cluster: of every password and server; others may have some with such names."""
        names = [name for name in content.users if not cluster.managed.shared or name in content.grants]
        return [name for name in names if name.rpartition("@")[0] in logins(cluster, names)]

    def drop(self, cluster: Cluster, users: Sequence[str]) -> Secret:
        """Return a script that removes the cluster's database and these users."""
        drop = f"DROP DATABASE IF EXISTS `{cluster.managed.database}`;"
        return Secret(self._statements([drop]).reveal() + self.tidy(users).reveal())

    def _statements(self, lines: Sequence[str]) -> Secret:
        return Secret(shell.call("mysql_statements", self.client) + " <<'SQL'\n" + "\n".join(lines) + "\nSQL\n")


def _pem(service: Service, name: str) -> str:
    return f"{service.folder}/nornir-k3s-{name}.pem"


MARIADB = MySQL(
    client="mariadb",
    flush="FLUSH LOCAL SSL",
    stored=mysql_password.native,
    identified="IDENTIFIED BY PASSWORD '{}'",
    dumper="mariadb-dump",
    settings=(
        "# K3s' compaction fails with error 1020 where this is on (the default of MariaDB from 11.6.2).",
        "loose_innodb_snapshot_isolation = OFF",
    ),
)
MYSQL = MySQL(
    client="mysql",
    flush="ALTER INSTANCE RELOAD TLS",
    stored=mysql_password.caching_sha2,
    identified="IDENTIFIED WITH caching_sha2_password AS '{}'",
    dumper="mysqldump --set-gtid-purged=OFF",  # so that any server can read it
    settings=(
        "# Nothing replicates from here; the log of a month, the default, would fill the disk with K3s' revisions.",
        "skip_log_bin",
        "# K3s does not speak the X protocol, which listens on every address unless the package says otherwise.",
        "loose_mysqlx_bind_address = 127.0.0.1",
    ),
)
