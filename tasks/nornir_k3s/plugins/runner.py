"""A Nornir runner with a stop event: it starts no more hosts, and running tasks end early."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nornir.core.inventory import Host
from nornir.core.task import AggregatedResult, MultiResult, Result, Task

from nornir_k3s.errors import Interrupted


class K3sRunner:
    """Run a task on hosts in threads; entry point `k3s_runner`.

    Arguments:
        num_workers: Hosts at the same time.
        stop: Set it to stop the run. Sessions read it as `nr.runner.stop` and end their waits.
    """

    def __init__(self, num_workers: int = 20, stop: threading.Event | None = None) -> None:
        self.num_workers = num_workers
        self.stop = stop or threading.Event()

    def run(self, task: Task, hosts: list[Host]) -> AggregatedResult:
        """Return each host's result; a host that was not started has a failed result with `Interrupted`.

        The first Ctrl-C sets the stop event and waits for running tasks; a second one exits at once.
        """
        todo: queue.SimpleQueue[tuple[Task, Host]] = queue.SimpleQueue()
        for host in hosts:
            todo.put((task.copy(), host))
        done: dict[str, MultiResult] = {}
        # Not an executor: at exit Python waits for an executor's threads, even after the second Ctrl-C.
        workers = [
            threading.Thread(target=self._work, args=(todo, done), name=f"{task.name}-{number}", daemon=True)
            for number in range(min(max(1, self.num_workers), len(hosts)))
        ]
        with self._interruptible():
            for worker in workers:
                worker.start()
            for worker in workers:
                # With a timeout: a signal that another thread receives does not wake the main thread.
                while worker.is_alive():
                    worker.join(0.2)
        results = AggregatedResult(task.name)
        for host in hosts:
            results[host.name] = done.get(host.name) or _skipped(host, task.name)
        return results

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Turn the first Ctrl-C into a stop; only the main thread can handle signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(number: int, frame: FrameType | None) -> None:
            if self.stop.is_set():
                signal.default_int_handler(number, frame)
            self.stop.set()

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _work(self, todo: queue.SimpleQueue[tuple[Task, Host]], done: dict[str, MultiResult]) -> None:
        while not self.stop.is_set():
            try:
                task, host = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done[host.name] = task.start(host)
            except BaseException as error:
                done[host.name] = _failed(host, task.name, error)


def _skipped(host: Host, name: str) -> MultiResult:
    return _failed(host, name, Interrupted(f"{host.name}: not started: the run was stopped"))


def _failed(host: Host, name: str, error: BaseException) -> MultiResult:
    result = Result(host=host, result=str(error), failed=True, exception=error)
    setattr(result, "name", name)  # noqa: B010 - Nornir declares it without a type
    multi = MultiResult(name)
    multi.append(result)
    return multi
