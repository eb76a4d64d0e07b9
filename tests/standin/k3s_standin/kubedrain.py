"""`k3s kubectl drain`: evicts a node's pods, and respects their budgets. No controller makes new ones elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from k3s_standin.kinds import KINDS
from k3s_standin.kubeclient import Client, KubectlError, parse_seconds

Item = dict[str, Any]
_AGAIN = 5  # seconds until a refused eviction is tried again
_BUDGET = "Cannot evict pod as it would violate the pod's disruption budget."


class Drainer:
    """One drain of one node."""

    def __init__(self, client: Client, options: dict[str, str], on: Callable[[str], bool]) -> None:
        self.client, self.options, self.on = client, options, on

    def drain(self, node: str) -> None:
        """Evict the node's pods.

        Raises:
            KubectlError: Some stay.
        """
        pods = self._pods(node)
        try:
            self._allowed(pods)
            self._evict([pod for pod in pods if _owner(pod) != "DaemonSet"])
        except KubectlError as error:
            raise KubectlError(
                f'error: unable to drain node "{node}" due to error: {error}, continuing command...\n'
                f"There are pending nodes to be drained:\n {node}\n{error}"
            ) from None
        print(f"node/{node} drained")

    def _pods(self, node: str) -> list[Item]:
        query = {"fieldSelector": f"spec.nodeName={node}"}
        if selector := self.options.get("--pod-selector"):
            query["labelSelector"] = selector
        items: list[Item] = self.client.ask("GET", f"/api/v1/pods?{urlencode(query)}")["items"]
        return items

    def _allowed(self, pods: list[Item]) -> None:
        bare = ", ".join(_name(pod) for pod in pods if not _owner(pod))
        daemons = ", ".join(_name(pod) for pod in pods if _owner(pod) == "DaemonSet")
        problems = []
        if daemons and not self.on("--ignore-daemonsets"):
            problems.append(f"cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): {daemons}")
        if bare and not self.on("--force"):
            problems.append(
                "cannot delete cannot delete Pods that declare no controller (use --force to override): " + bare
            )
        if problems:
            raise KubectlError("\n".join(problems))
        if daemons:
            sys.stderr.write(f"Warning: ignoring DaemonSet-managed Pods: {daemons}\n")

    def _evict(self, pods: list[Item]) -> None:
        limit = parse_seconds(self.options.get("--timeout", "0s")) or float("inf")
        end = time.monotonic() + limit
        while pods:
            pods = [pod for pod in pods if not self._evicted(pod)]
            if pods and time.monotonic() + _AGAIN > end:
                time.sleep(max(0, end - time.monotonic()))
                names = ", ".join(
                    f'error when evicting pods/"{pod["metadata"]["name"]}" -n "{pod["metadata"]["namespace"]}": '
                    f"global timeout reached: {limit:.0f}s"
                    for pod in pods
                )
                raise KubectlError(f"[{names}]" if len(pods) > 1 else names)
            if pods:
                time.sleep(_AGAIN)

    def _evicted(self, pod: Item) -> bool:
        space, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if not self.on("--disable-eviction"):
            sys.stderr.write(f"evicting pod {space}/{name}\n")
            if self._protected(pod):
                text = f'error when evicting pods/"{name}" -n "{space}" (will retry after 5s): {_BUDGET}'
                sys.stderr.write(text + "\n")
                return False
        self.client.ask("DELETE", KINDS["pods"].path(space, quote(name)))
        print(f"pod/{name} {'deleted' if self.on('--disable-eviction') else 'evicted'}")
        return True

    def _protected(self, pod: Item) -> bool:
        space = pod["metadata"]["namespace"]
        for budget in self.client.ask("GET", KINDS["poddisruptionbudgets"].path(space))["items"]:
            wanted = budget["spec"]["selector"].get("matchLabels") or {}
            if not _matches(pod, wanted):
                continue
            pods = self.client.ask("GET", KINDS["pods"].path(space))["items"]
            if len([one for one in pods if _matches(one, wanted)]) <= int(budget["spec"].get("minAvailable", 0)):
                return True
        return False


def _matches(pod: Item, labels: dict[str, str]) -> bool:
    return labels.items() <= (pod["metadata"].get("labels") or {}).items()


def _owner(pod: Item) -> str:
    return next((str(one["kind"]) for one in pod["metadata"].get("ownerReferences") or () if one.get("controller")), "")


def _name(pod: Item) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
