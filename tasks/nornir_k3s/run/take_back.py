"""Taking back: a controller that lacks secrets of a living cluster, or has older ones, takes them from its hosts.

Which value is the newer one is said by the hosts, never by a clock: the datastore's data are encrypted with one token;
a server's user of the database is named after its password; a certificate says when it was signed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from nornir_k3s import k3s
from nornir_k3s.checks import held as checks
from nornir_k3s.checks import token as tokens_of
from nornir_k3s.checks.other_installs import settings_in
from nornir_k3s.errors import HostsDisagree, K3sError
from nornir_k3s.facts import held
from nornir_k3s.model import pem
from nornir_k3s.model.host_facts import FileState, HostFacts
from nornir_k3s.model.paths import DATASTORE_KEYS
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.together import few
from nornir_k3s.roles import haproxy
from nornir_k3s.roles.datastore_login import login
from nornir_k3s.run.context import Run
from nornir_k3s.state import check_certificate, database_password, datastore_keys, known_cluster, tokens

Read = Callable[[Run, Sequence[str]], tuple[Mapping[str, Mapping[str, str]], Sequence[str]]]
NOTE = "taken back from the hosts"
_FILES = {checks.TOKEN: tokens.NAME, checks.PASSWORD: database_password.NAME, checks.KEYS: datastore_keys.FILE}
_ROLES = {
    checks.TOKEN: ("servers",),
    checks.PASSWORD: (),  # it is read where config.yaml is not as wanted
    checks.KEYS: ("datastore",),
    checks.CHECK: ("lb", "servers"),
}
_NOT_THERE = (
    "not on the hosts, and unknown here: what drift checks found before, the ages of backups, tokens of before (older"
    " dumps need them), rotations and restores that another controller has begun"
)
_NO_CA = (
    "the datastore's hosts do not have its CA's key, as from before nornir-k3s kept it there: deploy makes a new CA,"
    " reloads the datastore with it, and restarts K3s on every server; meanwhile servers cannot connect anew. To avoid"
    f" that, copy {datastore_keys.FILE} from the state folder of the controller that deployed it"
)

_OTHER = "K3s has another datastore there than the inventory's, so its token is not taken back"
_OTHER_HINT = (
    "nothing was changed. If it is another cluster's server, correct its address in the inventory; if its data shall be"
    " moved, use `nornir-k3s move`; else correct `datastore`, or put the token into the state folder (docs/team.md)"
)


def lacking(run: Run) -> list[str]:
    """Return what this controller would generate because its state folder does not have it."""
    missing = {name for name in run.store.generated if name not in run.store.fresh and run.store.read(name) is None}
    return [what for what, name in _FILES.items() if name in missing]


def begin(run: Run, read: Read, *, elsewhere: bool = False) -> None:
    """Take back what is lacking, before the first host is read for anything else.

    Arguments:
        read: Returns the fact `held` of hosts, and the names of those that could not be read.
        elsewhere: The cluster's data may be in another datastore than the inventory's: they are moved.

    Raises:
        HostsDisagree: Hosts do not agree about a secret.
    """
    wanted = lacking(run)
    if not wanted:
        return
    texts, unread = read(run, _hosts(run, ("servers", "datastore", "lb")))
    found = checks.values(run.cluster, texts)
    _require_agreement(found, [*wanted, checks.CA], run)
    others = [name for name, files in texts.items() if checks.has_other_datastore(run.cluster, files)]
    if others and not elsewhere:
        texts = {name: files for name, files in texts.items() if name not in others}
        found = checks.values(run.cluster, texts)
    trusted = {_sha256(files[held.DATASTORE_CA]) for files in texts.values() if held.DATASTORE_CA in files}
    taken = [what for what in wanted if _take(run, found, what, trusted)]
    unknown = [what for what in wanted if what not in taken]
    prefix = next((one for files in texts.values() if (one := checks.ca_prefix(files))), "")
    taken += [checks.CHECK] if _take_check(run, found, texts, prefix) else []
    asked = (*unread, *run.away)  # one that this inventory lacks may have it, too
    silent = [name for name in asked if {"servers", "datastore"} & set(run.member(name).roles)]
    if trusted and not elsewhere and checks.KEYS in unknown and not silent:
        run.report.notes.append(_NO_CA)
    if silent and unknown:
        run.unsure = f"{few(silent)}: not asked for the cluster's {', '.join(unknown)}"
    if others and checks.TOKEN in unknown:
        run.unsure = f"{few(others)}: {_OTHER}"
    run.taken.update(taken)
    if taken:
        run.use_inventory()
        hosts = dict.fromkeys(host for what in taken for host in found[what])
        run.report.notes.append(f"{NOTE} ({few(list(hosts))}): {', '.join(taken)}; {_NOT_THERE}")


def renew(run: Run, read: Read) -> bool:
    """Take over what another controller has changed since, as the facts of this run say.

    Returns:
        Whether the hosts must be read again: what was read depends on the token and the password.

    Raises:
        HostsDisagree: Hosts do not agree about a secret.
    """
    wanted = list(_outdated(run))
    taken: list[str] = []
    if wanted:
        roles = {role for what in wanted for role in _ROLES[what]}
        texts, _ = read(run, _hosts(run, roles)) if roles else ({}, ())
        found = {**checks.values(run.cluster, texts), checks.PASSWORD: _newer_passwords(run)}
        _require_agreement(found, [checks.TOKEN, checks.PASSWORD], run)
        files = (run.facts[member.name].files for member in run.of("servers"))
        trusted = {one[held.DATASTORE_CA].sha256 for one in files if held.DATASTORE_CA in one}
        for what in wanted:
            is_check = what == checks.CHECK
            done = _take_check(run, found, texts, run.ca_prefix) if is_check else _take(run, found, what, trusted)
            taken += [what] if done else []
    run.taken.update(taken)
    if {*taken} - {checks.CHECK}:
        run.use_inventory()
    if taken:
        run.report.notes.append(f"{NOTE}, where they are newer: {', '.join(taken)}")
    _learn(run)
    return checks.TOKEN in taken or checks.PASSWORD in taken


def settle(run: Run) -> None:
    """Save what was generated: now it is known that no host has a cluster.

    Raises:
        K3sError: It is not known.
    """
    if not run.store.keep:
        return
    if run.unsure:
        hint = "nothing was changed, and nothing was made anew: run it again with all hosts"
        raise K3sError(run.unsure, hint=_OTHER_HINT if _OTHER in run.unsure else hint)
    has_data = run.has_data or any(facts.database.bootstrap for facts in run.facts.values())
    if tokens.NAME in run.store.generated and has_data:
        return  # data with another token: the preflight refuses them, and this one is of no use
    run.store.commit()


def require_settled(run: Run) -> None:
    """Save what was generated, before a change: Nornir tasks change hosts without a preflight.

    Raises:
        K3sError: It may not be saved.
    """
    settle(run)
    if run.store.keep and tokens.NAME in run.store.generated:
        text = "the datastore has the data of a cluster whose token no host has"
        hint = "nothing was changed or made anew: give it as `token: {file: PATH}`, or restore a backup (docs/team.md)"
        raise K3sError(text, hint=hint)


def _hosts(run: Run, roles: Sequence[str] | set[str]) -> list[str]:
    return [name for name in run.present if set(roles) & set(run.member(name).roles)]


def _require_agreement(found: checks.Values, wanted: Sequence[str], run: Run) -> None:
    if problems := checks.disagreements(found, wanted):
        hint = (
            "nothing was changed. If another controller was interrupted, run the same command there again; else make"
            f" the hosts agree, or put the right value into {run.store.folder} (docs/team.md)"
        )
        raise HostsDisagree("hosts of this cluster do not agree: " + "; ".join(problems), hint=hint)


def _take(run: Run, found: checks.Values, what: str, trusted: Collection[str]) -> bool:
    name = _FILES[what]
    before = run.store.read(name)
    value = _newest_keys(found, trusted, before or "") if what == checks.KEYS else checks.any_of(found, what)
    if value is None or value.reveal().strip() == (before or "").strip():
        return False
    if what == checks.KEYS and before and not datastore_keys.replaces(value.reveal(), before):
        return False
    if what == checks.TOKEN and before:
        run.store.take(f"{name}-{Secret(before.strip()).fingerprint()}", before, None)
    run.store.take(name, value.reveal().strip() + "\n", before)
    if what == checks.PASSWORD:
        with contextlib.suppress(OSError):  # a state folder that cannot be written
            database_password.end(run.store)
    return True


_NEVER = datastore_keys.NEVER


def _signed(keys: Secret) -> datastore_keys.Signed:
    return datastore_keys.signed(keys.reveal()) or _NEVER


def _newest_keys(found: checks.Values, trusted: Collection[str], own: str) -> Secret | None:
    """Return the newest keys: a run that was killed may have written them on some of the hosts only.

    Those of another CA than ours count if the cluster's servers have that CA: a host may have been another cluster's.

    Arguments:
        trusted: SHA-256 of the datastore's CA, as servers have it.
        own: The keys of this controller, if it has some.
    """
    ours, sound = datastore_keys.authority(own), list[Secret]()
    for one in found.get(checks.KEYS, {}).values():
        ca = datastore_keys.authority(one.reveal())
        if datastore_keys.signed(one.reveal()) and (ca == ours or _sha256(ca) in trusted):
            sound.append(one)
    return max(sound, key=_signed, default=None)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _take_check(run: Run, found: checks.Values, texts: Mapping[str, Mapping[str, str]], ca_prefix: str) -> bool:
    authority = next((files[held.CLIENT_CA] for files in texts.values() if held.CLIENT_CA in files), "")
    pems = {one.reveal() for one in found.get(checks.CHECK, {}).values()}
    taken = [pem_ for pem_ in pems if check_certificate.take(run.store, ca_prefix, pem_, authority)]
    return bool(taken)


def _outdated(run: Run) -> Iterator[str]:
    """Yield what hosts have another value of, which is newer than that of this controller."""
    if not run.cluster.token_given and _has_rotated_token(run):
        yield checks.TOKEN
    if _newer_passwords(run):
        yield checks.PASSWORD
    keys = run.cluster.keys
    if keys and _differs(run, "datastore", DATASTORE_KEYS, keys.text.reveal()):
        yield checks.KEYS
    if run.ca_prefix:
        own = check_certificate.load(run.store, run.ca_prefix).reveal()
        if _differs(run, "lb", haproxy.CHECK_CERT, own):
            yield checks.CHECK


def _differs(run: Run, role: str, path: str, text: str) -> bool:
    sha256 = _sha256(text)
    states = (run.facts[member.name].files.get(path, FileState("absent")) for member in run.of(role))
    return any(state.kind == "file" and state.sha256 != sha256 for state in states)


def _settings(facts: HostFacts) -> Mapping[str, str]:
    """Return the settings of a server whose config.yaml is not as wanted; nothing of others."""
    state = facts.files.get(k3s.CONFIG)
    return settings_in(state.text) if state is not None and state.text else {}


def _has_rotated_token(run: Run) -> bool:
    """Return whether all servers have the token that the datastore's data need, and it is another one than ours.

    While only some have it, the rotation is not finished: phase token of deploy does that. A server without any, of a
    first deploy of another controller that was interrupted, says nothing.
    """
    wanted = tokens_of.stored(run.facts)
    if wanted in ("", run.cluster.token.fingerprint()):
        return False
    servers = [one for member in run.of("servers") if (one := run.facts[member.name]).server.token]
    written = {Secret(_settings(one).get("token", "")).fingerprint() for one in servers}
    return {one.server.token for one in servers} == {wanted} == written and _is_same_cluster(run)


def _newer_passwords(run: Run) -> dict[str, Secret]:
    """Return with which passwords servers log in to the managed database that this controller has not made.

    The datastore must have that user: it has none of passwords that were replaced.
    """
    cluster, found = run.cluster, dict[str, Secret]()
    if not cluster.is_managed or cluster.managed.kind == "etcd" or cluster.managed.password is not None:
        return found
    if database_password.NAME in run.store.fresh:
        return found
    begun, users = database_password.before(run.store), _users(run)
    for member in run.of("servers"):
        settings = _settings(run.facts[member.name])
        endpoint = checks.managed(cluster, settings)
        if endpoint is None or endpoint.password == cluster.datastore_password:
            continue
        own = replace(cluster, token=Secret(settings.get("token", "")), datastore_password=endpoint.password)
        if endpoint.user in users and endpoint.user == login(own) and endpoint.password.fingerprint() not in begun:
            found[member.name] = endpoint.password
    return found


def _users(run: Run) -> set[str]:
    names = [name for member in run.of("datastore") for name in run.facts[member.name].database.users]
    return {name.rpartition("@")[0] or name for name in names}


def _is_same_cluster(run: Run) -> bool:
    """Return whether the servers' CA is the one of the last deploy, or comes with it; True where that is unknown."""
    before = set(pem.blocks(known_cluster.ca(run.store)[1]))
    return not before or bool(before & set(pem.blocks(run.ca_certificate)))


def _learn(run: Run) -> None:
    """Save the CA of the cluster, and a kubeconfig, where this controller has none of it, or those of before."""
    own = run.ca_prefix, run.ca_certificate
    if not run.ready_servers or own == known_cluster.ca(run.store) or not (all(own) and _is_same_cluster(run)):
        return
    servers = (run.facts[member.name].server for member in run.of("servers"))
    if (own[0], run.cluster.token.fingerprint()) not in {(one.ca_prefix, one.token) for one in servers}:
        return  # a wrong address may lead to another cluster's server
    # A state folder that cannot be written, or a kubeconfig that is none: this run has read what it needs.
    with contextlib.suppress(OSError, ValueError):
        known_cluster.save_ca(run.store, *own)
        if text := run.facts[run.ready_servers[0]].kubeconfig:
            run.keep_kubeconfig(text)
