"""The Lease of the cluster: taken while the API answers, renewed, and let go by the run that holds the locks on hosts.

It keeps controllers apart that reach no common host, and shows whoever asks the API who is at work. A Lease whose
owner is dead is taken over: at once where this run holds the lock on every server on which the owner would hold it, or
where it is older than any clock is wrong; else when it was not renewed for as long as it lasts, by this controller's
own clock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from nornir_k3s.apply import lease as scripts
from nornir_k3s.apply.hold import now
from nornir_k3s.errors import K3sError
from nornir_k3s.model.lease import Lease
from nornir_k3s.model.work import Owner
from nornir_k3s.records import RecordError
from nornir_k3s.run.context import Run

log = logging.getLogger(__name__)
STALE = 300.0  # seconds: no server's clock is so wrong (preflight `clock`)
LONGEST = 60.0  # seconds that the owner of a Lease is watched; one that lasts longer is believed
SLOW = 2.0  # seconds without an answer after which the other servers are asked, too
_POLL = 2.0


class ClusterLease:
    """What a run knows of the Lease, and whether it has it."""

    def __init__(self, owner: Owner) -> None:
        self.held = False
        self.asked = 0.0  # when the API was last asked
        self._owner = owner
        self._known: Lease | None = None
        self._watched = ("", 0.0)  # the renewal of another owner's that was seen last, and since when
        self._left = False
        self._server = ""  # the one that answered last
        self._guard = threading.Lock()

    @property
    def other_lives(self) -> bool:
        """Whether the other owner that was found last is known to live."""
        return not self._watched[0]

    def take(self, run: Run, locked: frozenset[str], meanwhile: Callable[[], None]) -> Owner | None:
        """Take the Lease, where the API answers; wait until the one of a dead owner has run out.

        Arguments:
            locked: The hosts whose locks this run holds.
            meanwhile: Called again and again while the owner is watched.

        Returns:
            Who has it, if that is another run that lives.
        """
        begin, self._left = now(), False
        while (other := self.renew(run, locked)) is not None:
            if self.other_lives or now() - begin > LONGEST:
                return other
            stop = getattr(run.nr.runner, "stop", None) or threading.Event()
            if stop.wait(_POLL):
                return other
            meanwhile()
        return None

    def renew(self, run: Run, locked: frozenset[str]) -> Owner | None:
        """Renew the Lease, or take it; return who has it if that is another run, which may be dead."""
        with self._guard:
            self.asked = now()
            if self._left:
                return None  # the run has ended meanwhile
            return self._renew(run, locked)

    def leave(self, run: Run) -> None:
        """Let the Lease go; if the API does not answer, it runs out."""
        with self._guard:
            if self.held and self._known:
                self._ask(run, scripts.leaving(self._known))
            self.held, self._known, self._left = False, None, True

    def _renew(self, run: Run, locked: frozenset[str]) -> Owner | None:
        """Renew it; what another writer was faster with is read again, once.

        Without an answer of the API the locks on hosts count.
        """
        servers = [member.name for member in run.cluster.of("servers") if member.name in locked]
        for _ in range(2):
            if not self.held:
                found = self._ask(run, scripts.reading())
                if found.lease is None and found.reason != "NotFound":
                    return None
                self._known = found.lease
                if self._known and not self._may_take(self._known, locked):
                    return self._known.owner
            answer = self._ask(run, scripts.taking(self._known, self._owner, servers))
            if answer.lease:
                self._known, self.held, self._watched = answer.lease, True, ("", 0.0)
                return None
            if not answer.reason:
                return None
            self.held = False
        self.held = self._known is not None and self._known.holder == self._owner.id  # by a script that came late
        return self._known.owner if self._known and not self.held else None

    def _may_take(self, lease: Lease, locked: frozenset[str]) -> bool:
        if lease.holder in ("", self._owner.id) or lease.age > STALE:
            return True
        if lease.hosts and lease.hosts <= locked:
            return True  # the owner would hold these locks if it lived
        if lease.lasts > LONGEST:
            self._watched = ("", 0.0)
            return False
        if self._watched[0] not in ("", lease.renewed):
            self._watched = ("", 0.0)  # it was renewed: its owner lives
            return False
        if not self._watched[0]:
            self._watched = (lease.renewed or "never", now())
        return now() - self._watched[1] > lease.lasts

    def _ask(self, run: Run, script: str) -> scripts.Answer:
        """Return the first answer of the API; an empty one if no server has any.

        The server that answered last is asked first and, if it is slow, all others at the same time: servers whose
        kubectl hangs must not add up. What comes late changes nothing: the API refuses it, since the Lease is another
        one by then.
        """
        first, *others = sorted(_asked(run), key=lambda name: name != self._server) or [""]
        if not first:
            return scripts.Answer(None)
        pool = ThreadPoolExecutor(1 + len(others), thread_name_prefix="lease")
        try:
            asked = {pool.submit(_answer, run, first, script): first}
            while asked:
                done, _ = wait(asked, timeout=SLOW if others else None, return_when=FIRST_COMPLETED)
                for one in done:
                    name, answer = asked.pop(one), one.result()
                    if answer.lease or answer.reason:
                        self._server = name
                        return answer
                asked |= {pool.submit(_answer, run, name, script): name for name in others}
                others = []
            return scripts.Answer(None)
        finally:
            pool.shutdown(wait=False)


def _answer(run: Run, name: str, script: str) -> scripts.Answer:
    """Return what the API answers on this server; nothing where it does not."""
    try:
        return scripts.parse(run.sessions[name].run(script, what="renewing the Lease", timeout=30).stdout)
    except (K3sError, RecordError):
        log.debug("the Lease cannot be asked for on %s", name, exc_info=True)
        return scripts.Answer(None)


def _asked(run: Run) -> list[str]:
    """Return the servers that can be asked: with a connection, and ready if they were read."""
    linked = [m.name for m in run.cluster.of("servers") if m.name in run.sessions and run.sessions[m.name].alive]
    facts = dict(run.facts)  # other threads read hosts, and leave some out
    return [name for name in linked if name not in facts or facts[name].ready]
