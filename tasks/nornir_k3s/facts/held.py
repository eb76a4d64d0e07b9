"""What a host holds of its cluster's secrets; asked only by a controller that lacks some of them.

K3s' settings are read as those of a K3s that others have installed: flags, drop-ins and the environment may have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s import k3s
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.facts.k3s_server import KUBECONFIG
from nornir_k3s.model.paths import DATASTORE_KEYS, STATE
from nornir_k3s.records import Record, decoded
from nornir_k3s.roles import haproxy, server

TOKEN = f"{k3s.DATA}/server/token"
AGENT_TOKEN = f"{k3s.DATA}/server/agent-token"
SERVER_CA = f"{k3s.DATA}/server/tls/server-ca.crt"
CLIENT_CA = f"{k3s.DATA}/server/tls/client-ca.crt"
ENVIRONMENT = "/etc/systemd/system/k3s.service.env"
INSTALLED = f"{STATE}/installed"
UNIT = f"files of {k3s.UNITS['server']}"  # not a path: what `systemctl cat` prints
DATASTORE_CA = f"{server.FOLDER}/datastore-cafile.pem"  # of a managed datastore with TLS
FILES = {
    "servers": (INSTALLED, k3s.CONFIG, ENVIRONMENT, TOKEN, AGENT_TOKEN, SERVER_CA, CLIENT_CA, KUBECONFIG, DATASTORE_CA),
    "lb": (haproxy.CHECK_CERT,),
    "datastore": (DATASTORE_KEYS,),
}


class Held(Fact[Mapping[str, str]]):
    """Texts of the files that hold a cluster's secrets (k3s: pkg/server, printTokens; pkg/configfilearg); secret."""

    name, source, roles, when = "held", "k3s_installed", tuple(FILES), "held"

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Name the files of the host's roles."""
        unit = k3s.UNITS["server"] if "servers" in query.member.roles else ""
        return [unit, *(path for role in query.member.roles for path in FILES.get(role, ()))]

    def parse(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Return each text by its path, that of K3s' unit as `UNIT`, and the unit's name if it runs."""
        found = {}
        for record in records:
            if record[:1] == ("unit",):
                found[UNIT] = decoded(record.take(6)[-1])
            elif record and record[0] in ("environment", "settings", "token"):
                _, path, text = record.take(3)
                found[path] = decoded(text)
            elif record[:1] != ("changed",):
                path, text = record.take(2)
                found[path] = decoded(text)
        return found
