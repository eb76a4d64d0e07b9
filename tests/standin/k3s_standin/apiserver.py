"""kube-apiserver's part of 6443: who may ask what, health, version, and the objects."""

from __future__ import annotations

import re
import threading
import time

from k3s_standin.httpd import Answer, Request, json_answer, status, text_answer
from k3s_standin.kinds import KINDS
from k3s_standin.log import log
from k3s_standin.resources import Resources, Target, target
from k3s_standin.sealed import Undecryptable
from k3s_standin.store import Store, StoreError

PUBLIC = ("/healthz", "/livez", "/readyz", "/version", "/version/")
HOOKS = [
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "storage-object-count-tracker-hook",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "start-system-namespaces-controller",
    "start-cluster-authentication-info-controller",
    "start-kube-apiserver-identity-lease-controller",
    "start-kube-apiserver-identity-lease-garbage-collector",
    "start-legacy-token-tracking-controller",
    "start-service-ip-repair-controllers",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-kubernetes-service-cidr-controller",
    "aggregator-reload-proxy-client-cert",
    "start-kube-aggregator-informers",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-registration-controller",
    "apiservice-discovery-controller",
    "kube-apiserver-autoregistration",
]
CHECKS = [
    *("ping", "log", "etcd", "etcd-readiness", "informer-sync"),
    *(f"poststarthook/{hook}" for hook in HOOKS),
    *("autoregister-completion", "poststarthook/apiservice-openapi-controller"),
    *("poststarthook/apiservice-openapiv3-controller", "shutdown"),
]
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Pulse:
    """Asks the datastore once a second whether it is there, so that no request has to wait for the answer."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.last = 0.0

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        away = False
        while True:
            try:
                self.store.probe()
                self.last, away = time.monotonic(), False
            except StoreError as error:
                self.last = 0.0
                if not away:
                    log("error", f"error while range on /registry/health: {error}")
                away = True
            time.sleep(1)

    @property
    def good(self) -> bool:
        """Whether it answered just now."""
        return time.monotonic() - self.last < 3.5


class ApiServer:
    """The API of one server."""

    def __init__(self, resources: Resources, pulse: Pulse, version: str, advertised: str) -> None:
        self.resources, self.pulse, self.version, self.advertised = resources, pulse, version, advertised
        self.ready = False

    def answer(self, request: Request) -> Answer:
        """Answer anything that is not K3s' own."""
        if not self.ready:
            return status(503, "apiserver not ready", "ServiceUnavailable")
        if not request.user:
            return status(401, "Unauthorized", "Unauthorized")
        try:
            return self._answer(request)
        except Undecryptable as error:
            return status(500, f"Internal error occurred: {error}", "InternalError")
        except StoreError as error:
            return status(500, f"rpc error: code = Unknown desc = {error}", "InternalError")

    def _answer(self, request: Request) -> Answer:
        what = target(request.path)
        if not _allowed(request, what):
            return _forbidden(request, what)
        if what is not None:
            return self.resources.answer(request, what)
        first = request.path.split("/")[1]
        if first in ("readyz", "livez", "healthz"):
            return self._health(request, first)
        if request.path.rstrip("/") == "/version":
            return json_answer(version_info(self.version))
        return self._discovery(request.path)

    def _health(self, request: Request, which: str) -> Answer:
        one = request.path.removeprefix(f"/{which}").strip("/")
        if one and one not in CHECKS:
            return text_answer("404 page not found\n", 404)
        good = self.pulse.good
        bad = set() if good else {"etcd", "etcd-readiness"}
        checks = [one] if one else CHECKS
        passed = not bad & set(checks)
        if passed and "verbose" not in request.query:
            return text_answer("ok")
        lines = [f"[-]{c} failed: reason withheld" if c in bad else f"[+]{c} ok" for c in checks]
        text = "\n".join([*lines, f"{which} check {'passed' if passed else 'failed'}"]) + "\n"
        return text_answer(text, 200 if passed else 500)

    def _discovery(self, path: str) -> Answer:
        path = path.rstrip("/")
        groups = sorted({kind.group for kind in KINDS.values() if kind.group})
        if path == "/api":
            # The advertised address, and the API server's own port: 6443 is K3s' (kubernetes: apiserver/pkg/server).
            own = f"[{self.advertised}]:6444" if ":" in self.advertised else f"{self.advertised}:6444"
            rules = [{"clientCIDR": "0.0.0.0/0", "serverAddress": own}]
            return json_answer({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": rules})
        if path == "/apis":
            return json_answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": [{"name": g} for g in groups]})
        for group in ["", *groups]:
            if path == (f"/apis/{group}/v1" if group else "/api/v1"):
                found = [
                    {"name": one.plural, "singularName": one.singular, "namespaced": one.namespaced, "kind": one.kind}
                    for one in KINDS.values()
                    if one.group == group
                ]
                name = f"{group}/v1" if group else "v1"
                return json_answer({"kind": "APIResourceList", "groupVersion": name, "resources": found})
        return status(404, "the server could not find the requested resource", "NotFound")


def version_info(version: str) -> dict[str, str]:
    """Return what `/version` says."""
    match = re.match(r"v(\d+)\.(\d+)", version)
    major, minor = match.groups() if match else ("1", "34")
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": version,
        "gitCommit": "ae112bdf",
        "gitTreeState": "clean",
        "buildDate": "2026-11-22T16:09:44Z",
        "goVersion": "go1.26.8",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def _allowed(request: Request, what: Target | None) -> bool:
    if "system:masters" in request.groups:
        return True
    if "system:nodes" in request.groups and what is not None:
        name = request.user.removeprefix("system:node:")
        if what.kind.plural == "nodes":
            return (what.name == name and request.method != "DELETE") or (request.method == "POST" and not what.name)
        return what.kind.plural == "leases" and what.namespace == "kube-node-lease" and what.name == name
    return request.method == "GET" and (request.path in PUBLIC or request.path.rstrip("/") in ("/api", "/apis"))


def _forbidden(request: Request, what: Target | None) -> Answer:
    if what is None:
        verb = _VERBS.get(request.method, "get")
        return status(403, f'forbidden: User "{request.user}" cannot {verb} path "{request.path}"', "Forbidden")
    verb = _VERBS.get(request.method) or ("get" if what.name else "list")
    where = f'in the namespace "{what.namespace}"' if what.namespace else "at the cluster scope"
    thing = f'{what.kind.full} "{what.name}"' if what.name else what.kind.full
    return status(
        403,
        f'{thing} is forbidden: User "{request.user}" cannot {verb} resource "{what.kind.plural}" in API group'
        f' "{what.kind.group}" {where}',
        "Forbidden",
    )
