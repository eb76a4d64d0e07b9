"""The API's objects: list, get, create, change and delete them in the datastore."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k3s_standin import nodes, watch
from k3s_standin.httpd import JSON, Answer, Request, json_answer, status
from k3s_standin.kinds import KINDS, Kind
from k3s_standin.store import Entry, Expired, Store

Item = dict[str, Any]
PASSWORD = "/registry/secrets/kube-system/{}.node-password.k3s"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start"
    " and end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


@dataclass(frozen=True)
class Target:
    """What a path means."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    sub: str = ""

    @property
    def key(self) -> str:
        """The object's key, or the prefix of a list."""
        place = f"{self.namespace}/" if self.kind.namespaced and self.namespace else ""
        return f"{self.kind.prefix}{place}{self.name}"


def target(path: str) -> Target | None:
    """Return what `/api/v1/…` or `/apis/GROUP/VERSION/…` means; None when there is no such resource."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    kind = KINDS.get(rest[0])
    if kind is None or (kind.group, kind.version) != (group, version) or len(rest) > 3:
        return None
    return Target(kind, namespace, *rest[1:])


class _Modified(Exception):
    """The object is another one than the request was made for."""


class Resources:
    """The objects of a cluster."""

    def __init__(self, store: Store, pods: str) -> None:
        self.store, self.pods = store, ipaddress.ip_network(pods, strict=False)

    def answer(self, request: Request, what: Target) -> Answer:
        """Answer a request that may be made."""
        if not what.name:
            if request.method == "GET":
                return self._list(request, what)
            if request.method == "DELETE":
                return self._delete_all(request, what)
            return self._create(what, _body(request)) if request.method == "POST" else _not_allowed()
        entry = self.store.get(what.key)
        if entry is None:
            if request.method == "PUT" and what.kind.plural == "leases":
                return self._create(Target(what.kind, what.namespace), _body(request))
            return not_found(what)
        if request.method == "GET":
            return json_answer(self._seen(what.kind, entry))
        if request.method == "DELETE":
            return self._delete(what)
        if request.method in ("PUT", "PATCH"):
            return self._change(request, what)
        return _not_allowed()

    def _seen(self, kind: Kind, entry: Entry) -> Item:
        item = entry.json()
        if kind.plural == "nodes":
            lease = self.store.get(nodes.LEASE + item["metadata"]["name"])
            nodes.as_seen(item, nodes.renewed(lease.value) if lease else None)
        return item

    def _list(self, request: Request, what: Target) -> Answer:
        if request.query.get("watch", "false").lower() not in ("false", "0"):
            return self._watch(request, what)
        newest = self.store.revision()  # before the list: who watches from there misses nothing
        entries = self.store.list(what.key)
        items = [entry.json() for _, entry in entries]
        if what.kind.plural == "nodes":
            leases = {key.rsplit("/", 1)[1]: nodes.renewed(entry.value) for key, entry in self.store.list(nodes.LEASE)}
            items = [nodes.as_seen(item, leases.get(item["metadata"]["name"])) for item in items]
        items = [item for item in items if _wanted(request, item)]
        return json_answer(
            {
                "kind": f"{what.kind.kind}List",
                "apiVersion": what.kind.api_version,
                "metadata": {"resourceVersion": str(newest)},
                "items": items,
            }
        )

    def _watch(self, request: Request, what: Target) -> Answer:
        """Send what changes from a revision on; without one, all that is there comes first."""
        try:
            feed = self.store.feed(what.key, int(request.query.get("resourceVersion") or 0))
        except Expired as error:
            said = json.loads(status(410, str(error), "Expired").body)
            return Answer(200, JSON, json.dumps({"type": "ERROR", "object": said}).encode() + b"\n")
        seconds = watch.lifetime(request.query.get("timeoutSeconds", ""))

        def stream(send: Callable[[bytes], None], gone: Callable[[], bool]) -> None:
            watch.serve(feed, lambda item: _wanted(request, item), send, gone, seconds)

        return Answer(200, JSON, b"", stream=stream)

    def _create(self, what: Target, item: Item) -> Answer:
        kind, meta = what.kind, item.setdefault("metadata", {})
        name = str(meta.get("name", ""))
        if not _NAME.fullmatch(name) and not kind.full.endswith("rbac.authorization.k8s.io"):
            text = f'{kind.kind} "{name}" is invalid: metadata.name: Invalid value: "{name}": {_RULE}'
            return status(422, text, "Invalid")
        if kind.namespaced:
            meta["namespace"] = what.namespace or meta.get("namespace") or "default"
            if self.store.get(f"/registry/namespaces/{meta['namespace']}") is None:
                return status(404, f'namespaces "{meta["namespace"]}" not found', "NotFound")
        item |= {"apiVersion": kind.api_version, "kind": kind.kind}
        meta |= {"creationTimestamp": nodes.stamp(), "uid": str(uuid.uuid4())}
        if kind.plural == "nodes":
            item["spec"] = self._pod_range(name) | item.get("spec", {})
        if kind.plural == "certificatesigningrequests":
            if problem := csr_problem(item):
                return problem
            item["status"] = {}
        made = Target(kind, meta.get("namespace", ""), name)
        if not self.store.create(made.key, json.dumps(item).encode()):
            return status(409, f'{kind.full} "{name}" already exists', "AlreadyExists")
        return json_answer(self._written(made.key, item), 201)

    def _written(self, key: str, item: Item) -> Item:
        """Return an object as it was written, with its revision; an older one if it is another object by now."""
        entry = self.store.get(key)
        same = entry is not None and json.loads(entry.value) == item
        revision = str(entry.revision) if entry and same else "1"
        return item | {"metadata": item["metadata"] | {"resourceVersion": revision}}

    def _pod_range(self, name: str) -> Item:
        """Give a node the first free range of pod addresses."""
        for subnet in self.pods.subnets(new_prefix=max(24 if self.pods.version == 4 else 64, self.pods.prefixlen)):
            key = f"/registry/ranges/podcidrs/{subnet.network_address}"
            entry = self.store.get(key)
            if entry and self.store.get(f"/registry/minions/{entry.value.decode()}") is None:
                self.store.delete(key)
                entry = None
            if (entry and entry.value.decode() == name) or (entry is None and self.store.create(key, name.encode())):
                return {"podCIDR": str(subnet), "podCIDRs": [str(subnet)]}
        return {}

    def _change(self, request: Request, what: Target) -> Answer:
        body = _body(request)

        wanted = body.get("metadata", {}).get("resourceVersion") if request.method == "PUT" else None

        def change(item: Item) -> Item:
            if item["metadata"].pop("resourceVersion", None) != wanted and wanted:
                raise _Modified
            new = _merge(item, body) if request.method == "PATCH" else _replaced(item, body, what)
            return nodes.own_taints(new) if what.kind.plural == "nodes" else new

        try:
            changed = self.store.update(what.key, change)
        except _Modified:
            text = (
                f'Operation cannot be fulfilled on {what.kind.full} "{what.name}": the object has been modified;'
                " please apply your changes to the latest version and try again"
            )
            return status(409, text, "Conflict")
        return json_answer(self._written(what.key, changed)) if changed is not None else not_found(what)

    def _delete_all(self, request: Request, what: Target) -> Answer:
        """Delete what a list would show, and answer with it."""
        answer = self._list(request, what)
        for item in json.loads(answer.body)["items"]:
            self.store.delete(Target(what.kind, item["metadata"].get("namespace", ""), item["metadata"]["name"]).key)
        return answer

    def _delete(self, what: Target) -> Answer:
        self.store.delete(what.key)
        if what.kind.plural == "namespaces":  # what is in it goes with it
            for kind in KINDS.values():
                for key, _ in self.store.list(f"{kind.prefix}{what.name}/") if kind.namespaced else ():
                    self.store.delete(key)
        if what.kind.plural == "nodes":
            # The node's secret has it as owner, and goes with it.
            self.store.delete(PASSWORD.format(what.name))
            self.store.delete(nodes.LEASE + what.name)
        details = {"name": what.name, "kind": what.kind.plural}
        return json_answer(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )


def csr_problem(item: Item) -> Answer | None:
    """Return what admission says against a signing request."""
    from cryptography import x509

    spec, name = item.get("spec", {}), item["metadata"].get("name")
    signer = spec.get("signerName", "")
    head = f'CertificateSigningRequest.certificates.k8s.io "{name}" is invalid: spec'
    if "/" not in signer:
        return status(422, f"{head}.signerName: Required value: signerName must be a fully qualified domain", "Invalid")
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(spec.get("request", ""), validate=True))
    except ValueError:
        return status(422, f'{head}.request: Invalid value: "": PEM block type must be CERTIFICATE REQUEST', "Invalid")
    if not spec.get("usages"):
        return status(422, f"{head}.usages: Required value", "Invalid")
    groups = [str(one.value) for one in request.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)]
    if signer == "kubernetes.io/kube-apiserver-client" and "system:masters" in groups:
        text = (
            f'certificatesigningrequests.certificates.k8s.io "{name}" is forbidden: use of'
            " kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        )
        return status(403, text, "Forbidden")
    return None


def not_found(what: Target) -> Answer:
    """Return the answer for an object that is not there."""
    details = {"name": what.name, "kind": what.kind.plural} | ({"group": what.kind.group} if what.kind.group else {})
    return status(404, f'{what.kind.full} "{what.name}" not found', "NotFound", details=details)


def _not_allowed() -> Answer:
    return status(405, "the server does not allow this method on the requested resource", "MethodNotAllowed")


def _body(request: Request) -> Item:
    try:
        found = json.loads(request.body or b"{}")
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _replaced(item: Item, body: Item, what: Target) -> Item:
    if what.sub in ("status", "approval"):
        return item | {"status": body.get("status", {})}
    keep = {key: item["metadata"][key] for key in ("creationTimestamp", "uid") if key in item["metadata"]}
    new = body | {"metadata": body.get("metadata", {}) | keep}
    new["metadata"].pop("resourceVersion", None)
    return new | ({"status": item["status"]} if "status" in item and "status" not in body else {})


def _merge(item: Item, patch: Item) -> Item:
    for key, value in patch.items():
        if value is None:
            item.pop(key, None)
        elif isinstance(value, dict):
            item[key] = _merge(item.get(key) or {}, value)
        else:
            item[key] = value
    item.get("metadata", {}).pop("resourceVersion", None)
    return item


def _wanted(request: Request, item: Item) -> bool:
    labels, query = item["metadata"].get("labels") or {}, request.query
    return _selected(labels, query.get("labelSelector", "")) and _field(item, query.get("fieldSelector", ""))


def _selected(labels: dict[str, str], selector: str) -> bool:
    for part in filter(None, selector.split(",")):
        if part.startswith("!"):
            good = part[1:] not in labels
        elif "!=" in part:
            key, _, value = part.partition("!=")
            good = labels.get(key) != value
        elif "=" in part:
            key, _, value = part.replace("==", "=").partition("=")
            good = labels.get(key) == value
        else:
            good = part in labels
        if not good:
            return False
    return True


def _field(item: Item, selector: str) -> bool:
    for part in filter(None, selector.split(",")):
        path, _, value = part.replace("==", "=").partition("=")
        found: Any = item
        for word in path.split("."):
            found = found.get(word) if isinstance(found, dict) else None
        if str(found or "") != value:
            return False
    return True


def defaults(store: Store, services: str) -> None:
    """Make the objects that every cluster has."""
    for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
        _ensure(store, "namespaces", {"metadata": {"name": name}, "status": {"phase": "Active"}})
    cidr = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [services]}}
    _ensure(store, "servicecidrs", cidr)
    address = str(ipaddress.ip_network(services, strict=False)[1])
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]
    service = {"metadata": {"name": "kubernetes", "namespace": "default"}}
    _ensure(store, "services", service | {"spec": {"clusterIP": address, "ports": ports, "type": "ClusterIP"}})


def _ensure(store: Store, plural: str, item: Item) -> None:
    kind, meta = KINDS[plural], item["metadata"]
    meta |= {"creationTimestamp": nodes.stamp(), "uid": str(uuid.uuid4())}
    item = {"apiVersion": kind.api_version, "kind": kind.kind} | item
    key = Target(kind, meta.get("namespace", ""), meta["name"]).key
    if store.get(key) is None:
        store.create(key, json.dumps(item).encode())
