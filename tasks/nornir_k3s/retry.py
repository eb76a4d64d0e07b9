"""Retries and waits, each with a timeout, a name, and the run's stop event."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_exception, retry_if_result, stop_after_delay, stop_when_event_set
from tenacity import wait_random_exponential as backoff
from tenacity.nap import sleep_using_event

from nornir_k3s.errors import Interrupted, NotReady

T = TypeVar("T")
POLL = 0.2


def retry_transient(
    call: Callable[[], T], *, transient: Callable[[BaseException], bool], deadline: float, stop: threading.Event
) -> T:
    """Return the result of `call`, called again after transient errors until the deadline.

    Arguments:
        call: Must be safe to repeat.
        transient: Returns whether an error is worth a retry.
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
    probe: Callable[[], T], *, what: str, host: str, deadline: float, stop: threading.Event | None = None
) -> T:
    """Call `probe` until its result is true, and return the result.

    Arguments:
        what: The condition, as a clause: "the cluster works".
        host: The host or cluster that errors name.
        deadline: Seconds.
        stop: Ends waiting at once.

    Raises:
        NotReady: Timeout.
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
        return retrying(probe)
    except RetryError:
        if event.is_set():
            raise Interrupted(f"{host}: stopped while waiting until {what}") from None
        raise NotReady(host, f"timed out after {deadline:.0f} s waiting until {what}") from None


def watched(call: Callable[[], T], *, limit: float, stop: threading.Event) -> T:
    """Return the result of `call`, or abandon it on timeout or when the stop event is set.

    For calls that cannot be interrupted, such as a TCP connect.

    Arguments:
        limit: Seconds.

    Raises:
        TimeoutError: No result after `limit` seconds.
        Interrupted: The stop event was set.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="nornir-k3s-watched", daemon=True).start()
    left = limit
    while not wait_for([future], timeout=min(POLL, left)).done:
        left -= POLL
        if stop.is_set():
            raise Interrupted("stopped")
        if left <= 0:
            raise TimeoutError(f"no answer after {limit:.0f} s")
    return future.result()
