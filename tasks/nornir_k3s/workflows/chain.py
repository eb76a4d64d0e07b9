"""Runs the phases in order; independent phases run in parallel."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from nornir_k3s.errors import HostsFailed, Interrupted, K3sError
from nornir_k3s.model.report import PhaseReport
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run.context import Run


def in_steps(chain: Sequence[Phase]) -> Iterator[list[Phase]]:
    """Yield the phases in order, those that may run in parallel together."""
    step: list[Phase] = []
    for phase in chain:
        if step and phase.beside == step[0].name:
            step.append(phase)
            continue
        if step:
            yield step
        step = [phase]
    if step:
        yield step


def carry_out(run: Run, step: Sequence[Phase], *, together: bool) -> None:
    """Run the phases of one step: the first in parallel with the others, or all one by one unless `together`.

    Raises:
        K3sError: One of them failed; HostsFailed if both sides did. Both have ended.
    """
    first, *others = step
    if not others or not together:
        for phase in step:
            _one(run, phase)
        return
    with ThreadPoolExecutor(1, thread_name_prefix=first.name) as pool:
        beside = pool.submit(_one, run, first)
        try:
            for phase in others:
                _one(run, phase)
            _wait_for(run, beside)
        except K3sError as error:
            other = beside.exception()
            if isinstance(error, Interrupted) or not isinstance(other, K3sError) or other is error:
                raise
            raise (other if isinstance(other, Interrupted) else HostsFailed([other, error])) from None


def one_by_one(run: Run, phases: Sequence[Phase], *, hint: str) -> None:
    """Run phases one after the other.

    Arguments:
        hint: What to do after Ctrl-C between two phases.

    Raises:
        K3sError: One failed; with the report, which has ended.
    """
    run.report.phases = [PhaseReport(name=phase.name) for phase in phases]
    try:
        for phase in phases:
            _one(run, phase)
    except (K3sError, KeyboardInterrupt) as raised:
        error = raised if isinstance(raised, K3sError) else Interrupted("stopped between two phases", hint=hint)
        run.report.end(error, "interrupted" if isinstance(error, Interrupted) else "failed")
        error.report = run.report
        raise error from None


def _wait_for(run: Run, beside: Future[None]) -> None:
    """Wait for the phase in the other thread, and stop it on Ctrl-C, which only this thread receives."""
    stop = run.stop
    while not beside.done():
        try:
            wait([beside], timeout=0.2)
        except KeyboardInterrupt:
            if stop is None or stop.is_set():
                raise
            stop.set()
    beside.result()


def _one(run: Run, phase: Phase) -> None:
    record = run.thread.phase = run.report.phase(phase.name)
    begin = time.monotonic()
    try:
        phase.work(run)
    except BaseException as error:
        stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
        record.state = "interrupted" if stopped else "failed"
        raise
    else:
        if record.state != "failed":  # on some of its hosts
            record.state = "done" if record.hosts or phase.reads else "nothing to do"
    finally:
        record.seconds = round(time.monotonic() - begin, 3)
        run.thread.phase = None
