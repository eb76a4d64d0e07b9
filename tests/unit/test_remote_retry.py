from __future__ import annotations

import threading
import time

import pytest

from nornir_k3s.errors import Interrupted, NotReady
from nornir_k3s.retry import retry_transient, wait_until, watched


class Flaky:
    """Fails some times, then returns its number of calls."""

    def __init__(self, failures: int, error: type[Exception] = ConnectionError) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"failure {self.calls}")
        return self.calls


def transient(error: BaseException) -> bool:
    return isinstance(error, ConnectionError)


def test_transient_errors_are_tried_again() -> None:
    assert retry_transient(Flaky(2), transient=transient, deadline=30, stop=threading.Event()) == 3


def test_other_errors_are_not() -> None:
    call = Flaky(2, ValueError)
    with pytest.raises(ValueError, match="failure 1"):
        retry_transient(call, transient=transient, deadline=30, stop=threading.Event())
    assert call.calls == 1


def test_the_last_error_is_told_at_the_deadline() -> None:
    with pytest.raises(ConnectionError):
        retry_transient(Flaky(1000), transient=transient, deadline=0.3, stop=threading.Event())


def test_a_wait_returns_what_the_probe_found() -> None:
    answers = iter([None, "", "found"])
    assert wait_until(lambda: next(answers), what="it is there", host="h1", deadline=30) == "found"


def test_a_wait_that_ends_badly_names_its_condition() -> None:
    with pytest.raises(NotReady, match="h1: timeout after 0 s while waiting until the moon is full"):
        wait_until(lambda: False, what="the moon is full", host="h1", deadline=0.1)


def test_an_error_of_the_probe_ends_the_wait() -> None:
    with pytest.raises(ConnectionError):
        wait_until(Flaky(1), what="x", host="h1", deadline=30)


def test_a_stop_wakes_a_wait() -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    begin = time.monotonic()
    with pytest.raises(Interrupted, match="h1: stopped while waiting until x"):
        wait_until(lambda: False, what="x", host="h1", deadline=300, stop=stop)
    assert time.monotonic() - begin < 20


def test_a_call_that_cannot_be_interrupted_is_left_behind() -> None:
    stop, never = threading.Event(), threading.Event()
    with pytest.raises(TimeoutError, match="no answer"):
        watched(never.wait, limit=0.3, stop=stop)
    stop.set()
    with pytest.raises(Interrupted):
        watched(never.wait, limit=300, stop=stop)
    never.set()


def test_a_watched_call_s_own_result_or_error_comes_through() -> None:
    stop = threading.Event()
    assert watched(lambda: 5, limit=30, stop=stop) == 5
    with pytest.raises(ConnectionError, match="failure 1"):
        watched(Flaky(1), limit=30, stop=stop)
