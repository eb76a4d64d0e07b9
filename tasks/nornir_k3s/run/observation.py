"""Observation: what one run knows of a cluster, and the plan of each host that follows from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from nornir_k3s import k3s
from nornir_k3s.artifacts.source import Source
from nornir_k3s.checks import encryption, token
from nornir_k3s.facts import Query
from nornir_k3s.model import family as families
from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.family import DEBIAN
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.model.secret import Secret
from nornir_k3s.planner import PlannedHost, plan_host
from nornir_k3s.roles import left
from nornir_k3s.roles.desired import Known, desired
from nornir_k3s.roles.former_address import former_vips
from nornir_k3s.state import check_certificate, known_cluster, revision
from nornir_k3s.state.store import Store


@dataclass(kw_only=True)
class Observation:
    """The desired state of a cluster, and the facts of its hosts that were read.

    Arguments:
        cluster: The desired state.
        store: Secrets and results on the controller.
        source: Where the release of K3s comes from.
        facts: The facts of each host that was read; a later reading replaces them.
        away: Members of the last deploy that are not in this inventory.
        limit: The only hosts that may be changed; None for all.
        left_out: Hosts that are down, and agents that have failed: the run goes on without them.
        done: Servers and agents that this run has changed and that are ready again.
        drift: Also read the facts that only a drift check needs.
        deep: Hash every large file.
        renew: Certificates that are older are made anew, in seconds since the epoch; 0 for none.
        new_ca: Certificates that replace the CA of the servers, PEM, which K3s has stored in the datastore.
        started: When the run began (time.time).
        reload: Loads the inventory again: the state folder has other secrets than before.
    """

    cluster: Cluster
    store: Store
    source: Source
    facts: dict[str, HostFacts] = field(default_factory=dict)
    away: frozenset[str] = frozenset()
    limit: frozenset[str] | None = None
    left_out: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    drift: bool = False
    deep: bool = False
    renew: float = 0
    new_ca: str = ""
    started: float = field(default_factory=time.time)
    reload: Callable[[], Cluster] | None = None
    _planned: dict[str, tuple[HostFacts, Known, PlannedHost]] = field(default_factory=dict)

    def member(self, name: str) -> Member:
        """Return the member with this name."""
        return self.cluster.member(name)

    def of(self, role: str) -> tuple[Member, ...]:
        """Return the members of one role that were read and have not failed; a limited run may have read fewer."""
        read = (member for member in self.cluster.of(role) if member.name in self.facts)
        return tuple(member for member in read if member.name not in self.left_out)

    def agents(self, names: Iterable[str]) -> list[str]:
        """Return those of the hosts that are agents, and nothing else: a run can go on without them."""
        return [name for name in names if self.member(name).roles == ("agents",)]

    @property
    def present(self) -> list[str]:
        """The members in this inventory, in its order."""
        return [member.name for member in self.cluster.members if member.name not in self.away]

    @property
    def names(self) -> list[str]:
        """The hosts that were read and may be changed, in the inventory's order."""
        return self.chosen(member.name for member in self.cluster.members if member.name in self.facts)

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Return those of the hosts that may be changed."""
        return [name for name in names if (self.limit is None or name in self.limit) and name not in self.left_out]

    @property
    def ca_prefix(self) -> str:
        """`K10` and the hash of the cluster's CA: from a server, or from the last deploy if no server was read."""
        if not self.of("servers"):
            return known_cluster.ca(self.store)[0]
        return next((one.server.ca_prefix for one in self._servers() if one.server.ca_prefix), "")

    @property
    def ca_certificate(self) -> str:
        """The CA of the servers' certificates, PEM; empty before the first server has created it."""
        if not self.of("servers"):
            return known_cluster.ca(self.store)[1]
        found = (one.server for one in self._servers())
        return next((one.ca_certificate for one in found if one.ca_prefix and one.ca_certificate), "")

    def _servers(self) -> Iterable[HostFacts]:
        return sorted(
            (self.facts[m.name] for m in self.of("servers")), key=lambda one: not one.ready
        )  # ready ones first

    @property
    def ready_servers(self) -> list[str]:
        """The servers whose `/readyz` says ok."""
        return [m.name for m in self.of("servers") if self.facts[m.name].ready]

    def node(self, name: str) -> NodeState | None:
        """Return this member's node as a server listed it when it was read, or None."""
        return next((node for node in self.nodes() if node.name == self.member(name).node_name), None)

    def nodes(self) -> Sequence[NodeState]:
        """Return all nodes as a server listed them when it was read; nothing if none could."""
        return next((one.api.nodes for one in self._servers() if one.api.nodes is not None), ())

    def is_node_ready(self, name: str) -> bool:
        """Return whether a server listed this member's node as Ready when it was read."""
        node = self.node(name)
        return node is not None and node.ready

    def known(self, name: str) -> Known:
        """Return what is known besides the inventory and the host's own facts."""
        member, facts = self.member(name), self.facts.get(name)
        packages = {}
        if "datastore" in member.roles and not facts:
            packages = known_cluster.packages(self.store).get(name, {})
        bundle = self.source.known(facts.system.arch) if facts else None
        check = self.check_certificate() if "lb" in member.roles else Secret("")
        listed = next((one.api.nodes for one in self._servers() if one.api.nodes is not None), None)
        nodes = {node.name: node.version for node in listed} if listed is not None and member.role in NODES else None
        former = former_vips(self.cluster, self.facts, self.done) if "lb" in member.roles else ()
        family = DEBIAN if facts else families.of((), [known_cluster.managers(self.store).get(name, "")]) or DEBIAN
        gone = left.members(self.cluster, self.facts)
        back = self.revision().back if member.role == "servers" and facts else None
        known = Known(bundle, self.ca_prefix, self.ca_certificate, check, packages, nodes, former, gone, family, back)
        known = replace(known, renew=self.renew, new_ca=self.new_ca)
        if member.role != "servers":
            return known
        return replace(known, stored=token.stored(self.facts), keys=encryption.changing(self.facts))

    def check_certificate(self) -> Secret:
        """Return certificate and key of the load balancers' health check; empty where none lasts."""
        return check_certificate.load(self.store, self.ca_prefix, since=self.renew)

    def revision(self) -> revision.Seen:
        """Return what is known of the datastore's newest revision, and whether it was higher before."""
        newest = max((one.database.newest for one in self.facts.values()), default=0)
        units = [(one.unit(k3s.UNITS["server"]), one.skew + one.skew_error) for one in self._servers()]
        starts = [unit.started - ahead for unit, ahead in units if unit.active == "active"]
        return revision.look(self.store, self.cluster, newest, now=self.started, starts=starts)

    def query(self, name: str) -> Query:
        """Return which facts to read from a host."""
        member, facts = self.member(name), self.facts.get(name)
        known = self.known(name)
        spec, family = desired(self.cluster, member, facts, known), facts.family if facts else known.family
        return Query(self.cluster, member, spec, drift=self.drift, deep=self.deep, family=family)

    def planned(self, name: str) -> PlannedHost:
        """Return a host's plan; it is computed again only when its facts, or what else is known, have changed."""
        facts, known = self.facts[name], self.known(name)
        before = self._planned.get(name)
        if before and before[0] is facts and before[1] == known:
            return before[2]
        plan = plan_host(self.cluster, self.member(name), facts, known)
        self._planned[name] = facts, known, plan
        return plan

    def use_inventory(self) -> None:
        """Load the inventory again, with the secrets that the state folder has now: every plan depends on them."""
        if self.reload:
            self.cluster = self.reload()
            self._planned.clear()

    def use_token(self, token: Secret) -> None:
        """Use another token from now on: every plan depends on it."""
        self.cluster = replace(self.cluster, token=token)
        self._planned.clear()
