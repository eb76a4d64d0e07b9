"""Chain: phases one after the other, and those that do not concern each other side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from nornir_k3s.errors import HostsFailed, Interrupted, K3sError
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run.context import Run


def in_steps(chain: Sequence[Phase]) -> Iterator[list[Phase]]:
    """Yield the phases in their order; those that need not wait for the first of a step are in its step."""
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
    """Carry out the phases of one step: the first beside the others, or, unless `together`, all one after the other.

    Raises:
        K3sError: What one of them raised; HostsFailed where both sides failed. Both have ended by then.
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


def _wait_for(run: Run, beside: Future[None]) -> None:
    """Wait for what runs in another thread; Ctrl-C reaches only this one, so it stops that one, too."""
    stop = getattr(run.nr.runner, "stop", None)
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
        record.state = "done" if record.hosts or phase.reads else "nothing to do"
    finally:
        record.seconds = round(time.monotonic() - begin, 3)
        run.thread.phase = None
