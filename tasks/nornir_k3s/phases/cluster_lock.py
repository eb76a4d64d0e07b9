"""One run at a time changes a cluster, from whichever controller.

A run holds a lock on every host that it has a connection to (`apply/hold.sh`), and while the API answers the Lease
(`phases/lease.py`). It is taken before the first change, so that a run without changes takes none, and it is looked at
before each further one. It ends with the run, however that ends. What was read before another run has changed something
is out of date: `take` says so.
"""

from __future__ import annotations

import getpass
import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import cache
from pathlib import Path

from nornir_k3s.apply.hold import ANSWER, LASTS, Hold, Taken, now
from nornir_k3s.errors import Busy, HostUnreachable, Interrupted, K3sError, OutcomeUnknown
from nornir_k3s.model.work import Owner, owner
from nornir_k3s.phases.lease import ClusterLease
from nornir_k3s.run.context import Run

log = logging.getLogger(__name__)
BEAT = 5.0  # seconds between two beats
TASKS = "tasks"  # the command of Nornir tasks, which read a host once
RENEW = 10.0  # seconds between two renewals of the Lease
HINT = f"run it again when that has ended; a run that is dead loses its lock by itself within {LASTS} seconds"
_begun: dict[Path, set[tuple[str, str, int]]] = {}  # by state folder: hosts, and epochs and numbers that are ours


@cache
def me() -> Owner:
    """Return this process as an owner."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, in a container
        user = "unknown"
    host = socket.gethostname()
    return Owner(f"{user}@{host}/{uuid.uuid4().hex[:8]}", user, host, "work", 0)


class ClusterLock:
    """The lock of one run, and of those that are parts of it.

    Arguments:
        command: The subcommand that people know the run by.
        folder: The cluster's state folder.
    """

    def __init__(self, command: str, folder: Path) -> None:
        self.owner = replace(me(), command=command, since=time.time())
        self._ours = _begun.setdefault(folder, set())
        self._holds: dict[str, Hold] = {}
        self._lease = ClusterLease(self.owner)
        self._lost = ""
        self._taken = False
        self._run: Run | None = None
        self._guard = threading.RLock()
        self._ended = threading.Event()

    def take(self, run: Run) -> bool:
        """Take the lock; return whether what the run has read still holds: nobody has changed anything since.

        Raises:
            Busy: Another run has it.
            K3sError: A host cannot hold it.
        """
        with self._guard:
            if self._taken:
                return True
            first, *others = _order(run) or [""]
            if not first:
                return True  # no host can be changed yet
            try:
                for names in ([first], others):  # the first one decides between two runs that begin together
                    self._hold(run, names)
                if other := self._lease.take(run, frozenset(self._holds), self._beat):
                    raise Busy(str(other), hint=HINT)
                still = [name for name, hold in self._holds.items() if self._as_read(run, name, hold)]
                self._begin(self._holds.values())
            except BaseException:
                self._drop()
                raise
            self._taken, self._run = True, run
            for work in (self._keep, self._keep_lease):  # an API that hangs must not cost the hosts their beats
                threading.Thread(target=work, name="nornir-k3s-lock", daemon=True).start()
            return len(still) == len(self._holds)

    def require(self, run: Run) -> None:
        """Have the lock, on every host that this run reaches by now, before something is changed.

        Raises:
            Busy: Another run has it, or has changed something since this one has read the hosts.
        """
        with self._guard:
            if not self._taken:
                if not self.take(run):
                    self.release()
                    text = "another run has changed the cluster since this one has read it"
                    tasks = self.owner.command == TASKS
                    hint = (
                        "run k3s_facts on all hosts, then it again"
                        if tasks
                        else "run it again: it reads the hosts anew"
                    )
                    raise Busy(text, hint=hint)
                return
            self._run = run
            self._take_again([name for name in _order(run) if name not in self._holds])
            late = {name: hold for name, hold in self._holds.items() if hold.alive and not hold.fresh(LASTS / 2)}
            gone = [*_silent(late), *(name for name, hold in self._holds.items() if not hold.alive)]
            self._take_again(dict.fromkeys(gone))
        if self._lease.held and now() - self._lease.asked > LASTS:
            self._renew()
        if self._lost:
            raise Busy(self._lost, hint="nothing more was changed; run it again when that has ended")

    def release(self) -> None:
        """Let the lock go; a run that reads the hosts from now on sees that something was changed."""
        self._ended.set()
        with self._guard:
            if self._run is not None and not self._lost:
                self._lease.leave(self._run)
            self._drop()
            self._taken, self._run, self._ended = False, None, threading.Event()

    def _drop(self) -> None:
        for hold in self._holds.values():
            hold.close()
        self._holds.clear()

    def _hold(self, run: Run, names: Iterable[str]) -> None:
        """Take the lock on these hosts, as far as there is a connection.

        Raises:
            Busy: Another run has it on one of them.
        """
        holds = {name: Hold(run.sessions[name], self.owner) for name in names}
        taking = self._taking(holds)
        errors = []
        for name, future in taking.items():
            try:
                found = future.result()
            except HostUnreachable:
                log.debug("%s: not locked: there is no connection", name)
            except K3sError as error:
                errors.append(error)
            else:
                if found.busy:
                    other = owner(found.owner)
                    errors.insert(0, Busy(str(other) if other else f"another run has just begun on {name}", hint=HINT))
                else:
                    self._holds[name] = holds[name]
        if errors:
            raise errors[0]

    def _taking(self, holds: Mapping[str, Hold]) -> Mapping[str, Future[Taken]]:
        """Have these hosts answer, all at once: one that is slow must not cost the others their lock."""
        if not holds:
            return {}
        with ThreadPoolExecutor(len(holds), thread_name_prefix="lock") as pool:
            taking = {name: pool.submit(hold.take) for name, hold in holds.items()}
            while wait(taking.values(), timeout=BEAT).not_done:
                self._beat()
        return taking

    def _begin(self, holds: Iterable[Hold]) -> None:
        """Tell these hosts that changes begin.

        Raises:
            OutcomeUnknown: One does not answer.
        """
        holds, begin = list(holds), now()
        for hold in holds:
            hold.begin()
        beat = begin
        while silent := [hold for hold in holds if not hold.begun]:
            for hold in holds:
                hold.hear()
            if now() - begin > ANSWER or not all(hold.alive for hold in silent):
                text = "it has lost the lock of the cluster before the first change"
                raise OutcomeUnknown(silent[0].session.host, text)
            if now() - beat > BEAT:
                self._beat()
                beat = now()
            time.sleep(0.005)
        for hold in holds:  # it rises once more at the end
            self._ours.update((hold.session.host, hold.epoch, number) for number in (hold.number, hold.number + 1))

    def _as_read(self, run: Run, name: str, hold: Hold) -> bool:
        """Return whether nobody else has changed anything since this run has read the host."""
        facts = run.facts.get(name)
        if facts is None:
            return True
        read = facts.work
        other = read.held and (read.owner is None or read.owner.id != self.owner.id)
        start = read.number if read.epoch == hold.epoch else 0  # it has rebooted: has anybody begun since?
        since = range(start + 1, hold.number + 1)
        return not other and start <= hold.number and all((name, hold.epoch, one) in self._ours for one in since)

    def _take_again(self, names: Iterable[str]) -> None:
        """Take the lock on hosts that are new, or that have ended it because their connection was lost."""
        run = self._run
        able = [name for name in names if run and name in run.sessions and run.sessions[name].alive]
        holds = {name: Hold(run.sessions[name], self.owner) for name in able} if run else {}
        for name, taking in self._taking(holds).items():
            before, hold = self._holds.get(name), holds[name]
            try:
                found = taking.result()
                who = owner(found.owner)
                known = found.number if before is None else before.number + 1
                if before and not found.busy and found.epoch != before.epoch:
                    known = 0  # the host has rebooted; whoever has begun there since is another run
                if before is None and run and not found.busy and not self._as_read(run, name, hold):
                    self._lost = f"another run has changed {name} since this one has read it"
                elif found.number > known:
                    self._lost = f"this run has lost its lock on {name}" + (f": {who}" if who else " to another run")
                elif found.busy and (before is None or (who and who.id != self.owner.id)):
                    self._lost = str(who or f"another run is at work on {name}")
                if found.busy or self._lost:  # its former process may have it until it misses the beats
                    hold.close()
                    continue
                self._holds[name] = hold
                self._begin([hold])
            except Interrupted:
                raise
            except K3sError:
                log.debug("%s: the lock cannot be taken again now", name, exc_info=True)
                hold.close()

    def _beat(self) -> None:
        for hold in self._holds.values():
            hold.beat()

    def _renew(self) -> None:
        if run := self._run:
            holds = list(self._holds.items())
            own = frozenset(name for name, hold in holds if hold.alive and now() - hold.heard < LASTS)
            other = self._lease.renew(run, own)
            if other is not None and self._lease.other_lives:
                self._lost = f"this run has lost the Lease of the cluster: {other}"

    def _keep(self) -> None:
        """Send the beats until the lock is let go."""
        ended = self._ended
        while not ended.wait(BEAT):
            with self._guard:
                if ended.is_set():
                    return
                self._beat()
                try:
                    self._take_again([name for name, hold in self._holds.items() if not hold.alive])
                except K3sError:
                    log.debug("the lock cannot be taken again", exc_info=True)

    def _keep_lease(self) -> None:
        """Renew the Lease until the lock is let go."""
        ended = self._ended
        while not ended.wait(RENEW):
            self._renew()


def _order(run: Run) -> list[str]:
    """Return the hosts that this run has a connection to, servers first; the same order for every controller."""
    names = [name for name, session in list(run.sessions.items()) if session.alive]  # other threads add some
    servers = {member.name for member in run.cluster.of("servers")}  # a host that leaves is no member any more
    return sorted(names, key=lambda name: (name not in servers, name))


def _silent(holds: Mapping[str, Hold]) -> list[str]:
    """Return the hosts that do not answer a beat in time; all are asked at once, so that no other misses one."""
    if not holds:
        return []
    with ThreadPoolExecutor(len(holds), thread_name_prefix="lock") as pool:
        answers = pool.map(lambda hold: hold.confirmed(LASTS / 2), holds.values())
        return [name for name, answered in zip(holds, answers, strict=True) if not answered]
