"""Load balancers on hosts that run K3s: which port is free for HAProxy there.

Sources: docs.k3s.io `installation/requirements.md` (ports; agents open 6443 too, where `embedded-registry` or
`supervisor-metrics` is on), `cli/server.md` (bind-address; without one K3s listens on all addresses).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nornir_k3s import k3s
from nornir_k3s.inventory import rules
from nornir_k3s.inventory.rules import Found
from nornir_k3s.inventory.schema import ClusterModel
from nornir_k3s.model.cluster import NODES, Member
from nornir_k3s.model.registration import Registration

_OPEN_ON_AGENTS = ("embedded-registry", "supervisor-metrics")


def registration(model: ClusterModel, members: Sequence[Member]) -> Registration:
    """Return the registration address; without a port in the inventory, with one that K3s leaves free."""
    given = model.registration
    if "port" in given.model_fields_set or given.port not in taken(model, members):
        return given
    return given.model_copy(update={"port": k3s.SHARED_PORT})


def note(model: ClusterModel, members: Sequence[Member]) -> str:
    """Return a note where the registration address has another port than usual, or nothing."""
    chosen = registration(model, members)
    if chosen.port == model.registration.port:
        return ""
    names = ", ".join(member.name for member in _shared(members))
    return f"registration.port is {chosen.port}: {names} run K3s, which has {model.registration.port}"


def problems(model: ClusterModel, members: Sequence[Member]) -> Iterator[Found]:
    """Yield why HAProxy cannot have the port of the registration address on hosts that run K3s."""
    port = registration(model, members).port
    owner = taken(model, members).get(port)
    if owner is None:
        return
    free = next(one for one in (k3s.SHARED_PORT, k3s.API_PORT, 8443) if one not in taken(model, members))
    text = f"K3s has port {port} on {owner.name}, which is a load balancer, too: choose another, such as {free}"
    if port == _api_port(model):
        text += "; or set `bind-address` of these hosts to their own address, so that K3s leaves the VIP free"
    yield ("registration", "port"), text


def _shared(members: Sequence[Member]) -> list[Member]:
    """Return the load balancers that run K3s."""
    return [member for member in members if "lb" in member.roles and member.role in NODES]


def _api_port(model: ClusterModel) -> int:
    return int(str(rules.typed(model.server).get("https-listen-port", k3s.API_PORT)))


def taken(model: ClusterModel, members: Sequence[Member]) -> dict[int, Member]:
    """Return the ports that K3s has on load balancers, and a host of each."""
    found: dict[int, Member] = {}
    settings = rules.typed(model.server)
    for member in _shared(members):
        server = member.role == "servers"
        found |= dict.fromkeys(k3s.SERVER_PORTS if server else k3s.AGENT_PORTS, member)
        own = {**(settings if server else rules.typed(model.agent)), **member.settings}
        opened = server or any(settings.get(key) or own.get(key) for key in _OPEN_ON_AGENTS)
        if opened and not k3s.binds_one_address(str(own.get("bind-address") or "")):
            found[_api_port(model)] = member
    return found
