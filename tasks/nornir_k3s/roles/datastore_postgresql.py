"""The desired state of a PostgreSQL that this tool sets up.

Sources: docs.k3s.io `datastore/datastore.md`; kine `pkg/drivers/pgsql`; PostgreSQL's manual, chapters "Database Roles",
"The pg_hba.conf File" and "Secure TCP/IP Connections"; RFC 5802 and 7677 (SCRAM-SHA-256).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
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
from nornir_k3s.model.host_spec import HEADER, File, HostSpec, Initial, Unit
from nornir_k3s.model.paths import DATASTORE_KEYS
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles.datastore_login import connections, login, logins

PORT = 5432
_ITERATIONS = 4096


@dataclass(frozen=True)
class PostgreSQL:
    """The distribution's PostgreSQL; of Debian's, the cluster `main`."""

    ports: tuple[int, ...] = (PORT,)

    def endpoint(self, cluster: Cluster) -> Secret:
        """Return K3s' endpoint string."""
        address = (cluster.of("datastore")[0].address, PORT)
        mode = {"sslmode": "verify-full" if cluster.keys else "prefer" if cluster.managed.shared else "disable"}
        password, database = cluster.datastore_password, cluster.managed.database
        return build(Endpoint("postgresql", (address,), login(cluster), password, database, mode))

    def spec(self, cluster: Cluster, member: Member, service: Service) -> HostSpec:
        """Return the desired state of the host; of one that others use, only that it runs."""
        if cluster.managed.shared:
            return HostSpec(packages=service.packages, units=(Unit(service.unit),))
        folder, unit = service.folder, service.unit
        hba = f"{folder}/nornir-k3s-hba.conf"
        # A file that is written in place of another one goes on with it: with the copy that `put` leaves.
        kept = f"{service.config}.before-nornir-k3s"
        lines = [
            *([f"include_if_exists = '{kept}'"] if service.initialize else []),
            f"listen_addresses = '{member.address}'",
            f"port = {PORT}",
            f"hba_file = '{hba}'",
            "password_encryption = 'scram-sha-256'",
            f"max_connections = {connections(cluster)}",
        ]
        files: list[File] = []
        if cluster.keys:
            pair = cluster.keys.hosts[member.name]
            texts = {"ca": Secret(cluster.keys.ca), "cert": Secret(pair.certificate), "key": pair.key}
            lines += ["ssl = on", *(f"ssl_{name}_file = '{folder}/nornir-k3s-{name}.pem'" for name in texts)]
            files = [
                File(f"{folder}/nornir-k3s-{name}.pem", text, 0o640, "all", unit, "reload", "postgres")
                for name, text in texts.items()
            ]
            files.append(File(DATASTORE_KEYS, cluster.keys.text, 0o600, masking="all"))
        files.append(File(hba, Secret(self._hba(cluster)), 0o640, unit=unit, action="reload", group="postgres"))
        config = Secret(HEADER + "\n".join(lines) + "\n")
        files.append(File(service.config, config, unit=unit))
        # ALTER SYSTEM has the last word about the address.
        proof = shell.call("listens", member.address, PORT) + " && postgresql_alive"
        return HostSpec(
            packages=service.packages,
            initial=(Initial(service.data, service.initialize),) if service.initialize else (),
            files=tuple(files),
            units=(Unit(unit, reloadable=True, proof=proof),),
            watch=(service.data,) if service.data else (),
        )

    def _hba(self, cluster: Cluster) -> str:
        return HEADER + "\n".join(["local all postgres peer", *self._logins(cluster)]) + "\n"

    def _logins(self, cluster: Cluster) -> list[str]:
        """Return the lines that let the servers in, and nobody else."""
        how, database = "hostssl" if cluster.keys else "host", cluster.managed.database
        bits = {server.address: 128 if ":" in server.address else 32 for server in cluster.serving}
        return [f"{how} {database} +{cluster.managed.user} {address}/{n} scram-sha-256" for address, n in bits.items()]

    def added(self, cluster: Cluster) -> str:
        """Return the part of the pg_hba.conf of others that is this cluster's, with the lines that mark it."""
        begin, end = marks(cluster)
        return "\n".join([begin, *self._logins(cluster), end]) + "\n"

    def missing(self, cluster: Cluster, content: Database) -> list[str]:
        """Return what the database lacks."""
        user = login(cluster)
        found = [] if content.databases else [f"database {cluster.managed.database}"]
        if user not in content.users:
            found.append(f"user {user}")
        elif not content.users[user]:
            found.append(f"password of {user}")
        if user not in content.grants:
            found.append(f"rights of {user}")
        if cluster.managed.shared and content.hba != self.added(cluster):
            found.append("its lines in pg_hba.conf")
        return found

    def prepare(self, cluster: Cluster) -> Secret:
        """Return a script that creates database, users and rights; it may run again.

        One role owns everything and cannot log in; K3s logs in as a member of it, whose name depends on its password:
        so the old member works until the last server has the new one, and can then be dropped.
        """
        owner, user, database = cluster.managed.user, login(cluster), cluster.managed.database
        hashed = verifier(cluster.datastore_password)
        lines = self._added_script(cluster, self.added(cluster)) if cluster.managed.shared else ""
        sql = _statements(f"""
SELECT 'CREATE ROLE {owner} NOLOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{owner}') \\gexec
SELECT 'CREATE ROLE {user}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{user}') \\gexec
ALTER ROLE {user} LOGIN PASSWORD '{hashed}' NOSUPERUSER NOCREATEDB NOCREATEROLE;
GRANT {owner} TO {user};
ALTER ROLE {user} SET role = '{owner}';
SELECT 'CREATE DATABASE {database} OWNER {owner} TEMPLATE template0 ENCODING ''UTF8'' LOCALE ''C'''
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{database}') \\gexec
REVOKE ALL ON DATABASE {database} FROM PUBLIC;
""")  # noqa: S608 - names are checked by the schema, the verifier has no quotes
        return Secret(lines + sql.reveal())

    def _added_script(self, cluster: Cluster, text: str) -> str:
        """Return the script that puts this text in place of what this cluster has in the pg_hba.conf of others."""
        return shell.source("apply/shared_database.sh") + shell.call("hba_lines", *marks(cluster), text) + "\n"

    def dump(self, cluster: Cluster, member: Member) -> Recipe:  # noqa: ARG002 - as every kind
        """Return how the database is written to a file, for pg_restore."""
        restore = f"pg_restore --clean --if-exists -d {cluster.managed.database} FILE"
        words = cluster.managed.database, cluster.managed.user
        replace, verify = shell.call("replace_postgresql", *words), shell.call("verify_postgresql", *words)
        return Recipe("pgdump", "size_postgresql", "write_postgresql", restore, replace, verify)

    def obsolete_users(self, cluster: Cluster, content: Database) -> list[str]:
        """Return the users that no server needs any more: of earlier passwords, unless one that has left runs."""
        if len(cluster.serving) > len(cluster.of("servers")):
            return []
        return sorted(self._members(cluster, content) - {login(cluster)})

    def tidy(self, users: Sequence[str]) -> Secret:
        """Return a script that removes these users."""
        return _statements("\n".join(f"DROP ROLE IF EXISTS {user};" for user in users))

    def own_users(self, cluster: Cluster, content: Database) -> list[str]:
        """Return the users of this cluster: of every password, and the one that owns everything."""
        return [*sorted(self._members(cluster, content)), cluster.managed.user]

    def _members(self, cluster: Cluster, content: Database) -> set[str]:
        """Return the users of every password; others may have some with such names."""
        names = logins(cluster, content.users)
        return names & content.grants if cluster.managed.shared else names

    def drop(self, cluster: Cluster, users: Sequence[str]) -> Secret:
        """Return a script that removes the cluster's database and these users."""
        drop = f"DROP DATABASE IF EXISTS {cluster.managed.database} WITH (FORCE);"
        lines = self._added_script(cluster, "") if cluster.managed.shared else ""
        return Secret(_statements(drop).reveal() + self.tidy(users).reveal() + lines)


def marks(cluster: Cluster) -> tuple[str, str]:
    """Return the lines around what is this cluster's in the pg_hba.conf of a PostgreSQL that others use, too."""
    return f"# nornir-k3s, cluster {cluster.name}: begin", f"# nornir-k3s, cluster {cluster.name}: end"


def verifier(password: Secret) -> str:
    """Return the verifier that PostgreSQL stores of a password, to compare passwords without showing them."""
    secret = password.reveal().encode()
    # The salt is derived from the password, so that the same password gives the same verifier in every run.
    salt = hmac.new(secret, b"nornir-k3s", "sha256").digest()[:16]
    salted = hashlib.pbkdf2_hmac("sha256", secret, salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.new(salted, b"Client Key", "sha256").digest()).digest()
    server = hmac.new(salted, b"Server Key", "sha256").digest()
    text = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{text[0]}${text[1]}:{text[2]}"


def _statements(sql: str) -> Secret:
    return Secret(f"postgresql_statements <<'SQL'\n{sql}\nSQL\n")


POSTGRESQL = PostgreSQL()
