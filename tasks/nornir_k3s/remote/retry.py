"""Every retry and every wait: bounded by a deadline, named, ended early by the run's stop event."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_exception, retry_if_result, stop_after_delay, stop_when_event_set
from tenacity import wait_random_exponential as backoff
from tenacity.nap import sleep_using_event

from nornir_k3s.errors import Interrupted, NotReady

T = TypeVar("T")


def retry_transient(
    call: Callable[[], T], *, transient: Callable[[BaseException], bool], deadline: float, stop: threading.Event
) -> T:
    """Return what `call` returns, calling it again after transient errors until the deadline.

    Arguments:
        call: Must be safe to repeat.
        transient: Says which errors may pass by themselves.
        deadline: Seconds.
        stop: Ends waiting at once.

    Raises:
        BaseException: The last error of `call`.
    """
    # A Retrying per call: tenacity shares the statistics of a decorated function between threads.
    retrying = Retrying(
        retry=retry_if_exception(transient),
        stop=stop_after_delay(deadline) | stop_when_event_set(stop),
        wait=backoff(multiplier=0.5, max=8),
        sleep=sleep_using_event(stop),
        reraise=True,
    )
    return retrying(call)


def wait_until(
    probe: Callable[[], object], *, what: str, host: str, deadline: float, stop: threading.Event | None = None
) -> None:
    """Call `probe` until it is true.

    Arguments:
        what: The condition, in words.
        host: Whom it is about.
        deadline: Seconds.
        stop: Ends waiting at once.

    Raises:
        NotReady: The deadline came first.
        Interrupted: The stop event was set.
    """
    event = stop or threading.Event()
    retrying = Retrying(
        retry=retry_if_result(lambda value: not value),
        stop=stop_after_delay(deadline) | stop_when_event_set(event),
        wait=backoff(multiplier=0.2, max=3),
        sleep=sleep_using_event(event),
    )
    try:
        retrying(probe)
    except RetryError:
        if event.is_set():
            raise Interrupted(f"{host}: stopped while waiting until {what}") from None
        raise NotReady(host, f"after {deadline:.0f} s it is still not so that {what}") from None
