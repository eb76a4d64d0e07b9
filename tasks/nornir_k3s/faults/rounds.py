"""One fault at a time: probes run, the fault begins and ends, all is right again, and what was written is there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce

from nornir_k3s import k3s
from nornir_k3s.errors import HostError, Interrupted
from nornir_k3s.faults import hosts, measure, rolling_restart
from nornir_k3s.faults.catalogue import Fault
from nornir_k3s.faults.client import Client, RequestFailed
from nornir_k3s.faults.objects import Objects
from nornir_k3s.faults.probes import Probe, Watch, reader, writer
from nornir_k3s.model.drill_limits import DrillOptions, Limit
from nornir_k3s.model.drill_report import DrillReport, FaultResult
from nornir_k3s.run.context import Run

CALM = 1.0  # seconds of probes before a fault, and after all is right again
_ANSWERS, _FIRST_ANSWERS = 3, 15.0  # of each probe in the moment before a fault; seconds that this may take
_CAUGHT_UP = 60.0  # seconds that a watch may take to see the last events
_POLL = 0.3


class NotRight(Exception):
    """The cluster is not right, so that nothing more may be broken; in words."""


class LeftOut(Exception):
    """This fault cannot be made as the cluster is now; in words."""


@dataclass(frozen=True)
class Drill:
    """What all faults of a drill share.

    Arguments:
        run: Over the whole cluster.
        places: Clients of the API, by the name of the place they ask from.
        options: Rate and limits.
        problems: Returns what is wrong with the cluster now, in words.
        report: Gets what could not be put back.
        tell: Gets what happens, for people.
    """

    run: Run
    places: Mapping[str, Client]
    options: DrillOptions
    problems: Callable[[], list[str]]
    report: DrillReport
    tell: Callable[[str], None]

    @property
    def client(self) -> Client:
        """The first place's client."""
        return next(iter(self.places.values()))

    def settle(self) -> None:
        """Wait until the cluster is healthy.

        Raises:
            NotRight: It does not get so in time.
        """
        until = time.monotonic() + self.run.deadlines["verify"]
        while found := self.problems():
            if time.monotonic() > until:
                raise NotRight("; ".join(found))
            time.sleep(_POLL)

    def carry_out(self, fault: Fault, number: int) -> FaultResult:
        """Make one fault, and return what it cost.

        Raises:
            NotRight: The cluster was not right before, or is not after it.
            LeftOut: It would take the datastore away: nothing was done.
            K3sError: A host does not do what it should; the fault is undone where that is possible.
        """
        host, holders = self._host(fault)
        objects = Objects(f"f{number}")
        before = self._processes()
        found = FaultResult(
            kind=fault.kind,
            host=host,
            what=fault.what if fault.host or not host else f"{fault.what}: {host}",
            started=datetime.now(UTC),
            seconds=fault.seconds,
            limit=self._limit(fault, host, holders),
        )
        watch = Watch(self.client, objects)
        probes = self._probes(objects)
        with _running(watch, probes):
            _require_answers(probes)
            begin = time.monotonic()
            healed, during = self._break(fault, host)
            found.seconds = round(healed - begin, 1)
            after = self._rotation_is_right(fault, healed, found)
            found.holders = [" and ".join(names) or "nobody" for names in (holders, during, after)]
            time.sleep(CALM)
        for probe in probes:
            found.probes.append(
                measure.result(
                    probe.place, probe.kind, probe.samples, begin=probe.counted, end=probe.end, healed=healed
                )
            )
        found.zero = round(begin - min(probe.counted for probe in probes), 2)
        self._compare(found, objects, watch, probes)
        found.died = self._died(fault, host, before)
        found.broken = list(measure.broken(found))
        with contextlib.suppress(RequestFailed):  # they go with the namespace at the latest
            objects.delete(self.client)
        return found

    def _host(self, fault: Fault) -> tuple[str, tuple[str, ...]]:
        """Return where the fault is made, and who holds the VIP."""
        rotation = hosts.rotation(self.run)
        if rotation.wrong:
            raise NotRight("; ".join(rotation.wrong))
        if fault.host or fault.how == "restart":
            return fault.host, rotation.holders
        if fault.kind.startswith("datastore"):
            if leader := hosts.leader(self.run):
                return leader, rotation.holders
            raise NotRight("no member of etcd says that it leads")
        holder, stores = rotation.holders[0], [one.name for one in self.run.cluster.of("datastore")]
        if fault.how == "cut" and holder in stores and len(stores) < 3:
            raise LeftOut(f"{fault.kind}: {holder} has the VIP, and the datastore cannot do without this host")
        return holder, rotation.holders

    def _limit(self, fault: Fault, host: str, holders: Sequence[str]) -> Limit:
        """Return the limits: a host that is cut takes all that it is with it."""
        kinds = [fault.kind]
        if fault.how == "cut":
            cluster = self.run.cluster
            kinds += ["holder-cut"] if host in holders else []
            kinds += ["server-cut"] if any(one.name == host for one in cluster.of("servers")) else []
            kinds += ["datastore-cut"] if any(one.name == host for one in cluster.of("datastore")) else []
        return reduce(measure.together, (self.options.limit(kind) for kind in kinds))

    def _probes(self, objects: Objects) -> list[Probe]:
        rate = self.options.rate
        pairs = ((reader(p, c, rate), writer(p, c, rate, objects)) for p, c in self.places.items())
        return [probe for pair in pairs for probe in pair]

    def _break(self, fault: Fault, host: str) -> tuple[float, tuple[str, ...]]:
        """Make the fault and undo it; return when it was undone, and who held the VIP meanwhile."""
        if fault.how == "restart":
            during = rolling_restart.restart_all(self.run, lambda: self._wait_for_rotation().holders, self.report.left)
            return time.monotonic(), during
        try:
            hosts.begin(self.run, fault, host)
            until = time.monotonic() + fault.seconds + (0.5 if fault.how == "cut" else 0)
            time.sleep(fault.seconds / 2)
            during = hosts.rotation(self.run, without=(host,) if fault.how == "cut" else ()).holders
            time.sleep(max(0.0, until - time.monotonic()))
            if fault.how == "cut":
                hosts.wait_until_reached(self.run, host, 60)
                return until, during
            hosts.heal(self.run, host)
        except BaseException:
            self.undo(fault, host)
            raise
        return time.monotonic(), during

    def undo(self, fault: Fault, host: str) -> None:
        """End a fault after an interruption or an error; note in the report if it could not be ended, and how to."""
        self.tell(f"ending the fault on {host}")
        try:
            hosts.wait_until_reached(self.run.not_stopped(), host, fault.seconds + 60)
        except (HostError, KeyboardInterrupt, Interrupted) as error:  # Ctrl-C a second time
            ends = f"it ends by itself {fault.seconds:g} s after it began"
            why = error.message if isinstance(error, HostError) else "interrupted"
            text = f"{host}: {fault.what}: not undone ({why}); {ends}, or now: {hosts.UNDO}"
            self.report.left.append(text)

    def _rotation_is_right(self, fault: Fault, healed: float, found: FaultResult) -> tuple[str, ...]:
        after = self._wait_for_rotation()
        found.rotation = None if fault.how == "restart" else round(max(0.0, time.monotonic() - healed), 1)
        return after.holders

    def _wait_for_rotation(self) -> hosts.Rotation:
        until = time.monotonic() + self.run.deadlines["verify"]
        while True:
            rotation = hosts.rotation(self.run)
            if not rotation.wrong:
                return rotation
            if time.monotonic() > until:
                raise NotRight("; ".join(rotation.wrong))
            time.sleep(_POLL)

    def _compare(self, found: FaultResult, objects: Objects, watch: Watch, probes: Sequence[Probe]) -> None:
        """Look for every acknowledged write on each server, and compare what the watch saw."""
        acknowledged = {one.name for probe in probes for one in probe.samples if one.name and not one.error}
        found.acknowledged = len(acknowledged)
        seen = set(watch.seen)  # before the list, which holds all of it, if the datastore does
        held = hosts.objects(self.run, objects.selector)
        found.lost = measure.lost(acknowledged, held)
        stored = set.union(*held.values()) if held else set()
        until = time.monotonic() + _CAUGHT_UP
        while not watch.seen >= stored and time.monotonic() < until:
            time.sleep(0.1)
        watch.stop()
        seen |= watch.seen & stored
        found.watch = measure.watched(seen, stored, events=watch.events, reconnects=max(0, watch.connections - 1))

    def _processes(self) -> dict[str, Mapping[str, str]]:
        names = [member.name for role in ("servers", "agents") for member in self.run.cluster.of(role)]
        return {name: one.processes for name, one in hosts.look(self.run, dict.fromkeys(names)).items()}

    def _died(self, fault: Fault, host: str, before: Mapping[str, Mapping[str, str]]) -> list[str]:
        if fault.how == "restart":
            return []
        after = self._processes()
        told = {host} if fault.unit == k3s.UNITS["server"] or fault.how == "cut" else set()
        return [name for name, processes in before.items() if name not in told and after[name] != processes]


def _require_answers(probes: Sequence[Probe]) -> None:
    """Wait until no probe has failed for a moment, and each has answers; what was before that does not count.

    A load balancer may still close connections to a server that has just come back.

    Raises:
        NotRight: A probe fails, or gets no answer.
    """
    time.sleep(CALM)
    until = time.monotonic() + _FIRST_ANSWERS
    while wrong := next(filter(None, map(_wrong, probes)), ""):
        if time.monotonic() > until:
            raise NotRight(wrong)
        time.sleep(0.05)
    if any(one.error for probe in probes for one in list(probe.samples)):
        for probe in probes:
            probe.counted = time.monotonic()
            probe.samples.clear()
        time.sleep(CALM)


def _wrong(probe: Probe) -> str:
    """Return what is wrong with a probe now, or nothing."""
    recent = [one for one in list(probe.samples) if one.end > time.monotonic() - CALM]
    errors = [one.error for one in recent if one.error]
    if not errors and len(recent) >= _ANSWERS:
        return ""
    what = errors[0] if errors else f"{len(recent)} answers in {CALM:g} s"
    return f"{probe.kind}s from {probe.place} fail before the fault begins: {what}"


@contextlib.contextmanager
def _running(watch: Watch, probes: Sequence[Probe]) -> Iterator[None]:
    """Run the probes; the watch goes on after them, until it has seen their last writes."""
    try:
        watch.start()
    except RequestFailed as error:
        raise NotRight(f"the API does not list what it should watch: {error}") from None
    try:
        for probe in probes:
            probe.start()
        yield
    except BaseException:
        watch.stop()
        raise
    finally:
        for probe in probes:
            probe.stop()
        for probe in probes:
            probe.wait()
