"""The certificate on 6443: one for all servers, shared in the secret `k3s-serving` (rancher/dynamiclistener)."""

from __future__ import annotations

import base64
import ipaddress
import json
import ssl
from pathlib import Path
from typing import Any

from k3s_standin import certs
from k3s_standin.log import log
from k3s_standin.nodes import stamp
from k3s_standin.places import write
from k3s_standin.store import Store, StoreError

SECRET = "/registry/secrets/kube-system/k3s-serving"


def wanted_names(settings: dict[str, Any], name: str, addresses: list[str]) -> list[str]:
    """Return the names a server puts into the certificate by itself, and those of `tls-san`."""
    services = str((settings.get("service-cidr") or ["10.43.0.0/16"])[0])
    domain = settings.get("cluster-domain") or "cluster.local"
    found = [
        *("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}"),
        *("localhost", "127.0.0.1", "::1", str(ipaddress.ip_network(services, strict=False)[1])),
        *(name, name.split(".")[0], *addresses, *settings.get("node-external-ip", []), *settings.get("tls-san", [])),
    ]
    return list(dict.fromkeys(found))


class Serving:
    """The certificate in use, and the TLS context made of it."""

    def __init__(self, server: Path, ca: certs.Pair, names: list[str], port: int) -> None:
        self.tls, self.ca, self.names, self.port = server / "tls", ca, names, port
        self.pem = ("", "")
        self.context: ssl.SSLContext | None = None
        self.cache = self.tls / "dynamic-cert.json"

    def preload(self) -> None:
        """Use the cached certificate, or one of this server's own until the datastore's can be had."""
        kept = None if (self.tls / "dynamic-cert-regenerate").exists() else self._cached()
        if kept is None or not self._good(kept[0]):
            log(
                "warning",
                f"dynamiclistener [::]:{self.port}: no cached certificate available for preload - deferring certificate load"
                " until storage initialization or first client request",
            )
            kept = certs.signed(self.ca, "k3s", ["k3s"], usages=(certs.SERVER,), sans=sorted(self.names))
        self._use(kept)

    def share(self, store: Store) -> None:
        """Take the certificate all servers share; make it anew when a name of this server is not in it."""
        fresh = self.tls / "dynamic-cert-regenerate"
        entry = store.get(SECRET)
        shared = _pem_of(entry.json()) if entry else None
        if shared and not fresh.exists() and self._trusted(shared[0]) and set(self.names) <= _names(shared[0]):
            if shared != self.pem:
                self._use(shared)
            return
        kept = set() if shared is None or fresh.exists() else _names(shared[0])
        sans = sorted(kept | set(self.names))
        made = certs.signed(self.ca, "k3s", ["k3s"], usages=(certs.SERVER,), sans=sans)
        value = json.dumps(_secret(made, sans)).encode()
        if not (store.swap(SECRET, value, entry.revision) if entry else store.create(SECRET, value)):
            raise StoreError("another server was faster")
        fresh.unlink(missing_ok=True)
        shown = " ".join(f"listener.cattle.io/cn-{one}:{one}" for one in sans)
        log("info", f"Active TLS secret kube-system/k3s-serving (ver=) (count {len(sans)}): map[{shown}]")
        self._use(made)

    def _trusted(self, pem: str) -> bool:
        """Tell whether an authority of before or of now has signed it: it is shared while some servers have the old one."""
        one, *_ = certs.load(pem)
        return self._good(pem) or any(certs.issued(one, ca) for ca in certs.load(self.ca[0]))

    def _good(self, pem: str) -> bool:
        path = self.tls / "temporary-certs" / "candidate.crt"
        write(path, pem)
        good = certs.fits(path, self.ca)
        path.unlink()
        return good

    def _cached(self) -> certs.Pair | None:
        try:
            return _pem_of(json.loads(self.cache.read_text()))
        except (OSError, ValueError, KeyError):
            return None

    def _use(self, pem: certs.Pair) -> None:
        chain = self.tls / "temporary-certs" / "serving.pem"
        write(chain, pem[0] + pem[1])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        chain.unlink()
        context.load_verify_locations(self.tls / "client-ca.crt")
        context.verify_mode = ssl.CERT_OPTIONAL
        write(self.cache, json.dumps(_secret(pem, sorted(_names(pem[0])))))
        self.context, self.pem = context, pem


def _names(pem: str) -> set[str]:
    return certs.names(certs.load(pem)[0])


def _pem_of(secret: dict[str, Any]) -> certs.Pair:
    data = secret["data"]
    return base64.b64decode(data["tls.crt"]).decode(), base64.b64decode(data["tls.key"]).decode()


def _secret(pem: certs.Pair, sans: list[str]) -> dict[str, Any]:
    annotations = {f"listener.cattle.io/cn-{one.replace(':', '_')}": one for one in sans}
    data = {
        name: base64.b64encode(text.encode()).decode() for name, text in zip(("tls.crt", "tls.key"), pem, strict=True)
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": "k3s-serving",
            "namespace": "kube-system",
            "annotations": annotations,
            "creationTimestamp": stamp(),
        },
        "data": data,
    }
