"""A node's life: it registers, renews its lease, and posts its status; the same on servers and agents."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from k3s_standin import nodes
from k3s_standin.host import kubelet_problem, logging_problem
from k3s_standin.log import Fatal, log, noise
from k3s_standin.process import delay, setting, shut_down

Item = dict[str, Any]
# method, path, body -> status and answer; OSError or StoreError when nobody answers.
Call = Callable[[str, str, Any], tuple[int, Item]]
STATUS_EVERY = setting("STATUS_EVERY", 300)
LEASE_EVERY = 10


class Kubelet:
    """One node.

    Arguments:
        wanted: The node object to register.
        call: Reaches the API.
        missing: Returns what the node still lacks to be Ready, or nothing.
    """

    def __init__(self, wanted: Item, call: Call, missing: Callable[[], str] = lambda: "") -> None:
        self.wanted, self.call, self.missing = wanted, call, missing
        self.name = str(wanted["metadata"]["name"])
        self.path = f"/api/v1/nodes/{self.name}"

    def check(self, settings: Item, version: str) -> None:
        """End when the kubelet would refuse to run."""
        log(
            "info",
            f"Running kubelet --hostname-override={self.name} --kubeconfig=/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
        )
        noise()
        if problem := logging_problem(settings):
            raise Fatal(f"Error: {problem}")
        if problem := kubelet_problem(settings, version):
            shut_down(f"kubelet exited: {problem}")

    def start(self) -> None:
        """Begin to live."""
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        delay("NODE", 1.0)
        self._until(self._register)
        threading.Thread(target=self._renew, daemon=True).start()
        delay("READY", 1.0)
        said = None
        while (why := self.missing()) or said is None:
            if why and why != said:
                self._until(functools.partial(self._post, ready=False, why=why))
            said = why
            if why:
                time.sleep(0.5)
        while True:
            self._until(functools.partial(self._post, ready=True))
            time.sleep(STATUS_EVERY)

    def _until(self, step: Callable[[], bool]) -> None:
        while True:
            try:
                if step():
                    return
            except Exception as error:
                log("error", "Error updating node status, will retry", err=str(error), node=self.name)
            time.sleep(1)

    def _register(self) -> bool:
        """Add the node; one that is there already keeps its taints, and gets this start's labels and versions."""
        code, answer = self.call("POST", "/api/v1/nodes", self.wanted)
        if code == 409:
            meta = self.wanted["metadata"]
            patch = {"metadata": {"labels": meta["labels"], "annotations": meta["annotations"]}}
            code, answer = self.call("PATCH", self.path, patch)
            return code == 200 and self._post(ready=False)
        if code != 201:
            log("error", "Unable to register node with API server", err=answer.get("message", code), node=self.name)
        return code == 201

    def _post(self, *, ready: bool, why: str = "") -> bool:
        code, node = self.call("GET", self.path, None)
        if code == 404:
            # Registered once and deleted since: a kubelet adds itself only when it starts.
            log("error", "Error updating node status, will retry", err=f'nodes "{self.name}" not found', node=self.name)
            return True
        before = node.get("status", {}).get("conditions")
        status = self.wanted["status"] | {"conditions": nodes.conditions(ready=ready, why=why, before=before)}
        return code == 200 and self.call("PUT", f"{self.path}/status", {"status": status})[0] == 200

    def _renew(self) -> None:
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.name}"
        while True:
            try:
                code, answer = self.call("PUT", path, nodes.lease(self.name))
                failed = "" if code in (200, 201) else str(answer.get("message", code))
            except Exception as error:
                failed = str(error)
            if failed:
                log("error", "Failed to update lease", err=failed, node=self.name)
            time.sleep(2 if failed else LEASE_EVERY)
