"""A Nornir runner that stops when asked: no host is started after that, and what runs ends through the stop event."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait

from nornir.core.inventory import Host
from nornir.core.task import AggregatedResult, MultiResult, Result, Task

from nornir_k3s.errors import Interrupted


class K3sRunner:
    """Runs a task on hosts in threads; entry point `k3s_runner`.

    Arguments:
        num_workers: Hosts at the same time.
        stop: Set it to stop. Sessions look for it as `nr.runner.stop`, so that waits on hosts end, too.
    """

    def __init__(self, num_workers: int = 20, stop: threading.Event | None = None) -> None:
        self.num_workers = num_workers
        self.stop = stop or threading.Event()

    def run(self, task: Task, hosts: list[Host]) -> AggregatedResult:
        """Return each host's result; one that was not started has a failed result with `Interrupted`.

        A first Ctrl-C sets the stop event and waits for what runs; a second one leaves at once.
        """
        results = AggregatedResult(task.name)
        with ThreadPoolExecutor(self.num_workers) as pool:
            futures: dict[str, Future[MultiResult]] = {
                host.name: pool.submit(self._start, task.copy(), host) for host in hosts
            }
            try:
                wait(futures.values())
            except KeyboardInterrupt:
                self.stop.set()
                for future in futures.values():
                    future.cancel()
                wait(futures.values())
        for host in hosts:
            results[host.name] = _result(futures[host.name], host, task.name)
        return results

    def _start(self, task: Task, host: Host) -> MultiResult:
        if self.stop.is_set():
            return _skipped(host, task.name)
        return task.start(host)


def _result(future: Future[MultiResult], host: Host, name: str) -> MultiResult:
    if future.cancelled():
        return _skipped(host, name)
    error = future.exception()
    if error is None:
        return future.result()
    return _failed(host, name, error)


def _skipped(host: Host, name: str) -> MultiResult:
    return _failed(host, name, Interrupted(f"{host.name}: not started: the run was stopped before"))


def _failed(host: Host, name: str, error: BaseException) -> MultiResult:
    result = Result(host=host, result=str(error), failed=True, exception=error)
    setattr(result, "name", name)  # noqa: B010 - Nornir declares it without a type
    multi = MultiResult(name)
    multi.append(result)
    return multi
