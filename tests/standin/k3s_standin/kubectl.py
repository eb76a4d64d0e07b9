"""`k3s kubectl`: a real HTTPS client of the API, for the verbs that deploy tools use."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import ssl
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

PLURAL = {
    "node": "nodes",
    "nodes": "nodes",
    "no": "nodes",
    "secret": "secrets",
    "secrets": "secrets",
    "csr": "certificatesigningrequests",
    "certificatesigningrequest": "certificatesigningrequests",
    "certificatesigningrequests": "certificatesigningrequests",
}
VALUED = {
    "-o",
    "--output",
    "-n",
    "--namespace",
    "-f",
    "--filename",
    "--kubeconfig",
    "--server",
    "-s",
    "--certificate-authority",
    "--client-certificate",
    "--client-key",
    "--request-timeout",
    "--token",
    "--timeout",
    "--grace-period",
    "--raw",
    "--context",
}
SHORT = {"-o": "--output", "-n": "--namespace", "-f": "--filename", "-s": "--server"}


class KubectlError(Exception):
    """Ends kubectl with status 1 and this text."""


def run(argv: list[str]) -> int:
    """Run one kubectl command."""
    words, options = _split(argv)
    try:
        return _Kubectl(options).command(words)
    except KubectlError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _split(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    words: list[str] = []
    options: dict[str, str] = {}
    rest = iter(argv)
    for word in rest:
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        if not equals and name in VALUED:
            value = next(rest, "")
        options[SHORT.get(name, name)] = value or "true"
    return words, options


class _Kubectl:
    def __init__(self, options: dict[str, str]) -> None:
        self.options = options
        self.namespace = options.get("--namespace", "default")
        self.config = self._config()
        self.server = options.get("--server") or self.config.get("server") or "http://localhost:8080"

    def _config(self) -> dict[str, str]:
        path = self.options.get("--kubeconfig") or os.environ.get("KUBECONFIG") or "/etc/rancher/k3s/k3s.yaml"
        try:
            data = yaml.safe_load(Path(path).read_text())
        except OSError as error:
            if self.options.get("--kubeconfig") or not self.options.get("--server"):
                raise KubectlError(
                    f'error: error loading config file "{path}": open {path}: {error.strerror}'
                ) from None
            return {}
        name = data.get("current-context")
        context = next(c["context"] for c in data["contexts"] if c["name"] == name)
        cluster = next(c["cluster"] for c in data["clusters"] if c["name"] == context["cluster"])
        user = next(u["user"] for u in data["users"] if u["name"] == context["user"])
        return {**cluster, **user}

    def _context(self) -> ssl.SSLContext:
        get = self.options.get
        ca = get("--certificate-authority")
        data = self.config.get("certificate-authority-data")
        context = ssl.create_default_context(
            cafile=ca, cadata=base64.b64decode(data).decode() if data and not ca else None
        )
        if get("--insecure-skip-tls-verify"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if get("--client-certificate"):
            context.load_cert_chain(get("--client-certificate") or "", get("--client-key"))
        elif self.config.get("client-certificate-data"):
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                for key in ("client-certificate-data", "client-key-data"):
                    file.write(base64.b64decode(self.config[key]).decode())
                file.flush()
                context.load_cert_chain(file.name)
        return context

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Make one request."""
        parts = urlsplit(self.server)
        where = f"{parts.hostname}:{parts.port or 443}"
        timeout = float((self.options.get("--request-timeout") or "30").rstrip("s") or 30)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 443, timeout=timeout, context=self._context()
        )
        try:
            connection.request(
                method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ssl.SSLCertVerificationError as error:
            text = error.verify_message or str(error)
            if "mismatch" in text.lower():
                why = f"certificate is valid for other names, not {parts.hostname}"
            else:
                why = "certificate signed by unknown authority"
            raise KubectlError(
                f"Unable to connect to the server: tls: failed to verify certificate: x509: {why}"
            ) from None
        except ConnectionRefusedError:
            raise KubectlError(
                f"The connection to the server {where} was refused - did you specify the right host or port?"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise KubectlError(
                f"Unable to connect to the server: dial tcp {where}: {error or type(error).__name__}"
            ) from None
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Make one request that must succeed."""
        code, text = self.call(method, path, body)
        if code >= 400:
            try:
                status = json.loads(text)
            except ValueError:
                status = {}
            if code == 401:
                raise KubectlError("error: You must be logged in to the server (Unauthorized)")
            reason = {"NotFound": "NotFound", "Forbidden": "Forbidden", "AlreadyExists": "AlreadyExists"}.get(
                status.get("reason", ""), "InternalError"
            )
            raise KubectlError(f"Error from server ({reason}): {status.get('message', text.decode(errors='replace'))}")
        return dict(json.loads(text))

    def command(self, words: list[str]) -> int:
        """Run the command the words name."""
        verb = words[0] if words else "help"
        handler = {
            "get": self._get,
            "delete": self._delete,
            "create": self._create,
            "apply": self._create,
            "version": self._version,
            "certificate": self._certificate,
            "cordon": self._cordon,
            "uncordon": self._cordon,
            "drain": self._cordon,
        }.get(verb)
        if handler is None:
            raise KubectlError(f'error: unknown command "{verb}" for "kubectl"')
        return handler(words)

    def _path(self, kind: str, name: str = "") -> str:
        plural = PLURAL.get(kind)
        if plural is None:
            raise KubectlError(f'error: the server doesn\'t have a resource type "{kind}"')
        base = {"nodes": "/api/v1/nodes", "secrets": f"/api/v1/namespaces/{self.namespace}/secrets"}.get(
            plural, f"/apis/certificates.k8s.io/v1/{plural}"
        )
        return f"{base}/{name}" if name else base

    def _get(self, words: list[str]) -> int:
        if "--raw" in self.options:
            code, text = self.call("GET", self.options["--raw"])
            if code >= 400:
                if code == 401:
                    raise KubectlError("error: You must be logged in to the server (Unauthorized)")
                shown = json.dumps(text.decode(errors="replace").strip())[1:-1]
                raise KubectlError(
                    f'Error from server (InternalError): an error on the server ("{shown}") has prevented the request'
                )
            sys.stdout.write(text.decode())
            return 0
        kind, _, name = words[1].partition("/")
        names = [name] if name else words[2:]
        if names:
            found = []
            for one in names:
                try:
                    found.append(self.ask("GET", self._path(kind, one)))
                except KubectlError as error:
                    if "NotFound" in str(error) and "--ignore-not-found" in self.options:
                        continue
                    raise
            data: dict[str, Any] = (
                found[0]
                if len(found) == 1
                else {"apiVersion": "v1", "items": found, "kind": "List", "metadata": {"resourceVersion": ""}}
            )
            if not found:
                return 0
        else:
            listed = self.ask("GET", self._path(kind))
            data = {"apiVersion": "v1", "items": listed["items"], "kind": "List", "metadata": {"resourceVersion": ""}}
        self._print(PLURAL[kind], data)
        return 0

    def _print(self, plural: str, data: dict[str, Any]) -> None:
        form = self.options.get("--output", "")
        items = data["items"] if data.get("kind") == "List" else [data]
        if form == "json":
            print(json.dumps(data, indent=4))
        elif form == "yaml":
            print(yaml.safe_dump(data), end="")
        elif form == "name":
            for item in items:
                print(f"{plural[:-1]}/{item['metadata']['name']}")
        elif form.startswith("jsonpath="):
            sys.stdout.write(_jsonpath(form.partition("=")[2], data))
        elif not items:
            sys.stderr.write("No resources found\n")
        else:
            self._table(plural, items, wide=form == "wide")

    def _table(self, plural: str, items: list[dict[str, Any]], *, wide: bool) -> None:
        if plural == "nodes":
            rows = [["NAME", "STATUS", "ROLES", "AGE", "VERSION"] + (["INTERNAL-IP"] if wide else [])]
            for item in items:
                state = next((c["status"] for c in item["status"]["conditions"] if c["type"] == "Ready"), "Unknown")
                shown = "Ready" if state == "True" else "NotReady"
                if item["spec"].get("unschedulable"):
                    shown += ",SchedulingDisabled"
                labels = item["metadata"]["labels"]
                roles = (
                    ",".join(sorted(k.split("/")[1] for k in labels if k.startswith("node-role.kubernetes.io/")))
                    or "<none>"
                )
                row = [item["metadata"]["name"], shown, roles, _age(item), item["status"]["nodeInfo"]["kubeletVersion"]]
                rows.append(row + ([item["status"]["addresses"][0]["address"]] if wide else []))
        else:
            rows = [["NAME", "AGE"]] + [[item["metadata"]["name"], _age(item)] for item in items]
        if "--no-headers" in self.options:
            rows = rows[1:]
        widths = [max(len(row[i]) for row in rows) + 3 for i in range(len(rows[0]))]
        for row in rows:
            print("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def _delete(self, words: list[str]) -> int:
        kind, _, name = words[1].partition("/")
        for one in [name] if name else words[2:]:
            try:
                self.ask("DELETE", self._path(kind, one))
            except KubectlError as error:
                if "NotFound" in str(error) and "--ignore-not-found" in self.options:
                    continue
                raise
            group = ".certificates.k8s.io" if PLURAL[kind].startswith("cert") else ""
            print(f'{PLURAL[kind][:-1]}{group} "{one}" deleted')
        return 0

    def _create(self, words: list[str]) -> int:
        source = self.options.get("--filename", "-")
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
        for item in yaml.safe_load_all(text):
            kind = str(item["kind"]).lower()
            path = self._path(kind)
            if words[0] == "apply" and self.call("GET", f"{path}/{item['metadata']['name']}")[0] == 200:
                self.ask("PUT", f"{path}/{item['metadata']['name']}", item)
            else:
                self.ask("POST", path, item)
            print(f"{kind}/{item['metadata']['name']} created")
        return 0

    def _certificate(self, words: list[str]) -> int:
        if words[1] != "approve":
            raise KubectlError("error: only approve is known here")
        for name in words[2:]:
            self.ask("PUT", self._path("csr", name) + "/approval", {})
            print(f"certificatesigningrequest.certificates.k8s.io/{name} approved")
        return 0

    def _cordon(self, words: list[str]) -> int:
        off = words[0] == "uncordon"
        for name in words[1:]:
            self.ask("PATCH", self._path("node", name), {"spec": {"unschedulable": None if off else True}})
            print(f"node/{name} {'uncordoned' if off else 'cordoned'}")
        return 0

    def _version(self, _: list[str]) -> int:
        print(f"Server Version: {self.ask('GET', '/version')['gitVersion']}")
        return 0


def _age(item: dict[str, Any]) -> str:
    made = datetime.strptime(item["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    seconds = int((datetime.now(UTC) - made).total_seconds())
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m"


def _jsonpath(template: str, data: dict[str, Any]) -> str:
    """Simple paths: `{.a.b[0].c}`, `{.items[*].metadata.name}`, and plain text between them."""

    def resolve(match: re.Match[str]) -> str:
        found: list[Any] = [data]
        for name, index in re.findall(r"\.([\w\\.-]+?)(?=\.|\[|$)|\[([^\]]*)\]", match.group(1)):
            if name:
                found = [f[name] for f in found if isinstance(f, dict) and name in f]
            elif index == "*":
                found = [item for f in found for item in f]
            else:
                found = [f[int(index)] for f in found if len(f) > int(index)]
        return " ".join(f if isinstance(f, str) else json.dumps(f) for f in found)

    return re.sub(r"\{([^}]*)\}", resolve, template)
