"""The objects that a drill writes: ConfigMaps in a namespace of its own, which goes with them."""

from __future__ import annotations

import threading
import time
from urllib.parse import urlencode

from nornir_k3s.errors import PreflightFailed
from nornir_k3s.faults.client import Client, RequestFailed

NAMESPACE = "nornir-k3s-drill"
LABEL = "nornir-k3s-drill"
_OWNER = {"app.kubernetes.io/managed-by": "nornir-k3s"}
_NAMESPACES = "/api/v1/namespaces"
_PATH = f"{_NAMESPACES}/{NAMESPACE}/configmaps"
_GONE = 120.0  # seconds; the namespace controller deletes what is in it first


class Objects:
    """Those of one fault.

    Arguments:
        tag: Tells them from those of other faults; their names begin with it.
    """

    def __init__(self, tag: str) -> None:
        self.tag = tag

    @property
    def selector(self) -> str:
        """The label selector for them."""
        return f"{LABEL}={self.tag}"

    def create(self, client: Client, name: str) -> None:
        """Create one.

        Raises:
            RequestFailed: It was not acknowledged.
        """
        meta = {"name": name, "labels": {LABEL: self.tag}}
        client.ask("POST", _PATH, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})

    def names(self, client: Client) -> tuple[set[str], str]:
        """Return the names of those that are there, and the revision of the list.

        Raises:
            RequestFailed: There is no answer.
        """
        found = client.insist("GET", f"{_PATH}?{urlencode({'labelSelector': self.selector})}")
        names = {str(one["metadata"]["name"]) for one in found.get("items") or ()}
        return names, str(found.get("metadata", {}).get("resourceVersion", ""))

    def watch_path(self, revision: str) -> str:
        """Return the path that watches them from a revision on."""
        query = {"labelSelector": self.selector, "watch": "true", "resourceVersion": revision, "timeoutSeconds": "3600"}
        return f"{_PATH}?{urlencode(query)}"

    def delete(self, client: Client) -> None:
        """Delete them.

        Raises:
            RequestFailed: There is no answer.
        """
        client.insist("DELETE", f"{_PATH}?{urlencode({'labelSelector': self.selector})}", patience=120)


def make_namespace(client: Client) -> None:
    """Create the namespace; what a drill that was killed has left is removed first.

    Raises:
        PreflightFailed: A namespace of this name is somebody else's.
        RequestFailed: There is no answer.
    """
    try:
        found = client.ask("GET", f"{_NAMESPACES}/{NAMESPACE}")
    except RequestFailed as error:
        if error.status != 404:
            raise
    else:
        labels = found.get("metadata", {}).get("labels") or {}
        if not _OWNER.items() <= labels.items():
            text = f"the namespace {NAMESPACE} is there, and not of a drill: remove it, or rename it"
            raise PreflightFailed([text])
        remove_namespace(client)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": _OWNER}}
    client.insist("POST", _NAMESPACES, body, accept=(409,))


def remove_namespace(client: Client) -> None:
    """Delete the namespace with all that is in it, and wait until it is gone.

    Raises:
        RequestFailed: There is no answer, or it does not go.
    """
    client.insist("DELETE", f"{_NAMESPACES}/{NAMESPACE}", accept=(404, 409))
    until = time.monotonic() + _GONE
    while time.monotonic() < until:
        try:
            client.insist("GET", f"{_NAMESPACES}/{NAMESPACE}")
        except RequestFailed as error:
            if error.status == 404:
                return
            raise
        threading.Event().wait(0.5)
    raise RequestFailed("the namespace is still there")
