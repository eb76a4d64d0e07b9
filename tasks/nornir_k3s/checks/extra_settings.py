"""Checks of settings of K3s that come from elsewhere: drop-ins, files of the environment, flags of the unit.

Sources: docs.k3s.io `installation/configuration.md` and k3s `pkg/configfilearg` (files are made flags, so that they
hide the environment, and flags of the unit hide both; config.yaml.d comes after config.yaml); systemd.unit(5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from nornir_k3s import k3s, k3s_installed
from nornir_k3s.checks.for_ever import NEVER
from nornir_k3s.k3s_installed import key_of
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.installed import Installed
from nornir_k3s.roles import agent, node, running, server

ENVIRONMENT = ".service.env"
_ID = "extra-settings"
_EXPECTED = "settings of the inventory only"
# A value of another origin would make the host part of another cluster, or one that cannot be changed later.
_CRITICAL = {*k3s.OURS, "node-name", "cluster-cidr", "service-cidr", "secrets-encryption"}


def check(cluster: Cluster, member: Member, facts: HostFacts, own: str) -> Iterator[Finding]:
    """Yield what else sets settings of K3s on a server or agent, and holds instead of the inventory's.

    Arguments:
        own: The unit of the host's role.
    """
    delivered = {file.path for file in node.files(cluster, own)[0]} | facts.ledger.files
    written = server.settings(cluster, member) if member.role == "servers" else agent.settings(cluster, member, "")
    one = running.installation(facts, "server" if member.role == "servers" else "agent")
    for path, names, _ in facts.extra_settings:
        if path in delivered or (own in facts.foreign_units and path.endswith(ENVIRONMENT)):
            continue
        file = "config.yaml.d" in path
        holds = {name for name in names if file or key_of(name) not in written}
        yield from _file(cluster, member, facts, path, (names, holds))
    for path, keys in sorted(_of_dropins(one).items()):
        if path not in delivered:
            holds = {key for key, variable in keys.items() if not variable or key not in written}
            yield from _file(cluster, member, facts, path, (list(keys), holds))
    if own not in facts.foreign_units:
        yield from _flags(cluster, member, facts, own)


def spec(cluster: Cluster, member: Member) -> HostSpec:
    """Return the desired state of a server or agent, as far as its settings need it."""
    return server.spec(cluster, member, None) if member.role == "servers" else agent.spec(cluster, member, None, "")


def _of_dropins(one: Installed | None) -> dict[str, dict[str, bool]]:
    """Return what drop-ins of the unit set, by their paths: the settings, and whether as variables."""
    found: dict[str, dict[str, bool]] = {}
    for key, setting in one.settings.items() if one else ():
        for origin in setting.origins:
            path = origin.removeprefix(k3s_installed.VARIABLE)
            if ".service.d/" in path:
                found.setdefault(path, {})[key] = path != origin
    return found


def _file(
    cluster: Cluster, member: Member, facts: HostFacts, path: str, both: tuple[Collection[str], set[str]]
) -> Iterator[Finding]:
    """Yield what a file sets: an error if it holds instead of the inventory, and differs in what must be the same.

    Arguments:
        both: The names that it sets, and those of them that hold.
    """
    names, holds = both
    same = {name for name in names if is_same(cluster, member, facts, key_of(name), path)}
    critical = _CRITICAL | (k3s.MUST_MATCH if running.installation(facts, "server") else frozenset())
    bad = sorted({name for name in holds - same if key_of(name) in critical})
    if bad:
        found = f"{path} sets {', '.join(bad)}, which would hold instead of the inventory's"
        yield problem(member.name, _ID, found, _EXPECTED, _remedy(facts, path, bad))
    elif names and same == set(names):
        found = f"{path} sets {', '.join(sorted(set(names)))}, as the inventory does"
        yield problem(member.name, _ID, found, _EXPECTED, f"nothing to do now; {_away(path, names)}", "note")
    elif names:
        found = f"{path} sets {', '.join(sorted(set(names)))}, beside the inventory"
        remedy = f"move them into the inventory, and {_away(path, names)}"
        yield problem(member.name, _ID, found, _EXPECTED, remedy, "note")


def is_same(cluster: Cluster, member: Member, facts: HostFacts, key: str, path: str = "") -> bool:
    """Return whether a setting that is in force is what the inventory says; False if its value is not known.

    Arguments:
        path: A drop-in that sets it: what it makes of our config.yaml counts, whatever hides it now.
    """
    one = running.installation(facts, "server" if member.role == "servers" else "agent")
    host = spec(cluster, member)
    in_file = key in k3s_installed.TOKEN_FILES
    if one and path in one.dropins and not (in_file and not running.has_token_text(one, key)):
        after, ours = running.wanted(host, one), running.wanted(host)
        key = k3s_installed.TOKEN_FILES.get(key, key)
        return key in after.settings and running.form(cluster, key, after) == running.form(cluster, key, ours)
    if one is None or key not in one.settings:
        return False
    return running.same(cluster, member, facts, key, (one, running.wanted(host)))


def _remedy(facts: HostFacts, path: str, bad: Collection[str]) -> str:
    fixed = sorted({key_of(name) for name in bad} & set(NEVER))
    if fixed and facts.server.token:
        return (
            f"give {', '.join(fixed)} in the inventory as the file has it: that cannot be changed after the first start"
        )
    return _away(path, bad)


def _flags(cluster: Cluster, member: Member, facts: HostFacts, own: str) -> Iterator[Finding]:
    one = running.installation(facts, "server" if member.role == "servers" else "agent")
    given = _given(facts, own, one)
    bad = sorted(key for key in given & _CRITICAL if not is_same(cluster, member, facts, key))
    if bad:
        found = f"{own} runs with {', '.join(f'--{name}' for name in bad)}, which hold instead of the inventory's"
        remedy = f"remove them from the unit or its drop-in (systemctl cat {own}), then systemctl daemon-reload"
        fixed = [key for key in bad if key in NEVER]
        if fixed and facts.server.token:
            remedy = f"give {', '.join(fixed)} in the inventory as it runs: that cannot be changed; then {remedy}"
        yield problem(member.name, _ID, found, _EXPECTED, remedy)


def _given(facts: HostFacts, own: str, one: Installed | None) -> set[str]:
    """Return the settings that are flags of the unit; those of a drop-in are told with it."""
    if one is None:
        return set(k3s_installed.flags(facts.unit(own).command))
    return {key for key, setting in one.settings.items() if f"flags of {own}" in setting.origins}


def _away(path: str, names: Collection[str]) -> str:
    if "config.yaml.d" in path:
        return f"rename the file, and K3s does not read it: mv {path} {path}.before"
    if ".service.d/" in path:
        return f"rename the file: mv {path} {path}.before; systemctl daemon-reload"
    return f"remove {', '.join(sorted(set(names)))} from {path}"
