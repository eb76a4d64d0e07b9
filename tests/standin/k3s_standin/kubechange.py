"""`k3s kubectl`: the verbs that change something."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from k3s_standin import kinds
from k3s_standin.kinds import Kind
from k3s_standin.kubeclient import KubectlError, failure
from k3s_standin.kubedrain import Drainer
from k3s_standin.kubeget import MERGE, Getter

Item = dict[str, Any]


class Changer(Getter):
    """One command that changes something."""

    def _documents(self) -> list[tuple[Kind, Item]]:
        source = self.options.get("--filename")
        if not source:
            raise KubectlError("error: must specify one of -f and -k")
        try:
            text = sys.stdin.read() if source == "-" else Path(source).read_text()
            found = [one for one in yaml.safe_load_all(text) if one]
        except OSError:
            raise KubectlError(f'error: the path "{source}" does not exist') from None
        except yaml.YAMLError as error:
            raise KubectlError(f"error: error parsing {source}: error converting YAML to JSON: {error}") from None
        items = [item for one in found for item in (one["items"] if one.get("kind") == "List" else [one])]
        pairs = []
        for item in items:
            kind = next((k for k in kinds.KINDS.values() if k.kind == item.get("kind")), None)
            if kind is None or kind.api_version != item.get("apiVersion"):
                name = item.get("metadata", {}).get("name", "")
                text = (
                    f'resource mapping not found for name: "{name}" namespace: "" from "{source}": no matches for kind'
                )
                raise KubectlError(f'error: {text} "{item.get("kind")}" in version "{item.get("apiVersion")}"')
            pairs.append((kind, item))
        return pairs

    def _home(self, kind: Kind, item: Item) -> str:
        return kind.path(item["metadata"].get("namespace") or self.namespace)

    def _send(self, method: str) -> int:
        """Make one request with what the file holds, and print the answer: `--raw`."""
        source = self.options.get("--filename")
        if not source:
            raise KubectlError("error: must specify one of -f and -k")
        body = json.loads(sys.stdin.read() if source == "-" else Path(source).read_text())
        code, data = self.client.call(method, self.options["--raw"], body)
        if code >= 400:
            raise failure(code, data)
        sys.stdout.write(data.decode())
        return 0

    def replace(self, _: list[str]) -> int:
        if "--raw" in self.options:
            return self._send("PUT")
        for kind, item in self._documents():
            self.client.ask("PUT", f"{self._home(kind, item)}/{quote(item['metadata']['name'])}", item)
            print(f"{self.title(kind)}/{item['metadata']['name']} replaced")
        return 0

    def create(self, words: list[str]) -> int:
        if "--raw" in self.options:
            return self._send("POST")
        if len(words) == 3 and self.kind(words[1]).plural == "namespaces":
            documents = [(kinds.KINDS["namespaces"], {"metadata": {"name": words[2]}})]
        else:
            documents = self._documents()
        for kind, item in documents:
            if not self.on("--dry-run"):
                self.client.ask("POST", self._home(kind, item), item)
            print(f"{self.title(kind)}/{item['metadata']['name']} created")
        return 0

    def apply(self, _: list[str]) -> int:
        for kind, item in self._documents():
            path = f"{self._home(kind, item)}/{quote(item['metadata']['name'])}"
            code, _data = self.client.call("GET", path)
            if code == 404:
                self.client.ask("POST", self._home(kind, item), item)
            else:
                self.client.ask("PATCH", path, item, MERGE)
            print(f"{self.title(kind)}/{item['metadata']['name']} {'created' if code == 404 else 'configured'}")
        return 0

    def delete(self, words: list[str]) -> int:
        if self.options.get("--filename"):
            targets = [(kind, str(item["metadata"]["name"])) for kind, item in self._documents()]
        else:
            targets = self.targets(words[1:])
        status = 0
        for kind, name in targets:
            try:
                self.client.ask("DELETE", self.path(kind, name))
            except KubectlError as error:
                if error.reason != "NotFound" or not self.on("--ignore-not-found"):
                    sys.stderr.write(f"{error}\n")
                    status = 1
                continue
            where = f" from {self.namespace} namespace" if kind.namespaced else ""
            print(f'{self.title(kind)} "{name}" deleted{where}')
        return status

    def _change(self, kind: Kind, name: str, patch: Item, said: str) -> None:
        self.client.ask("PATCH", self.path(kind, name), patch, MERGE)
        print(f"{self.title(kind)}/{name} {said}")

    def patch(self, words: list[str]) -> int:
        try:
            patch = json.loads(self.options.get("--patch", ""))
        except ValueError:
            raise KubectlError("error: unable to parse the patch: it must be JSON here") from None
        for kind, name in self.targets(words[1:]):
            self._change(kind, name, patch, "patched")
        return 0

    def label(self, words: list[str]) -> int:
        field, done = ("labels", "labeled") if words[0] == "label" else ("annotations", "annotated")
        marks = [word for word in words[2:] if "=" in word or word.endswith("-")]
        patch = {w.partition("=")[0].removesuffix("-"): w.partition("=")[2] if "=" in w else None for w in marks}
        for kind, name in self.targets([word for word in words[1:] if word not in marks]):
            item = self.client.ask("GET", self.path(kind, name))
            have = item["metadata"].get(field) or {}
            for key, value in patch.items():
                if value is not None and have.get(key, value) != value and not self.on("--overwrite"):
                    text = f"'{key}' already has a value ({have[key]}), and --overwrite is false"
                    raise KubectlError(f"error: {text}")
            unchanged = all(have.get(key) == value for key, value in patch.items())
            self._change(kind, name, {"metadata": {field: patch}}, "not labeled" if unchanged else done)
        return 0

    def taint(self, words: list[str]) -> int:
        marks = [word for word in words[2:] if "=" in word or ":" in word or word.endswith("-")]
        for kind, name in self.targets([word for word in words[1:] if word not in marks]):
            taints = self.client.ask("GET", self.path(kind, name))["spec"].get("taints", [])
            for mark in marks:
                pair, _, effect = mark.removesuffix("-").partition(":")
                key, _, value = pair.partition("=")
                same = [t for t in taints if t["key"] == key and (not effect or t["effect"] == effect)]
                if mark.endswith("-") and not same:
                    raise KubectlError(f'error: taint "{mark.removesuffix("-")}" not found')
                if same and not mark.endswith("-") and not self.on("--overwrite"):
                    text = f"node {name} already has {key} taint(s) with same effect(s) and --overwrite is false"
                    raise KubectlError(f"error: {text}")
                taints = [t for t in taints if t not in same]
                if not mark.endswith("-"):
                    taints.append({"effect": effect, "key": key} | ({"value": value} if value else {}))
            self._change(kind, name, {"spec": {"taints": taints or None}}, "tainted")
        return 0

    def cordon(self, words: list[str]) -> int:
        off = words[0] == "uncordon"
        node = kinds.KINDS["nodes"]
        for name in [word.removeprefix("node/") for word in words[1:]]:
            already = bool(self.client.ask("GET", node.path(name=name))["spec"].get("unschedulable")) is not off
            if already:
                print(f"node/{name} already {'uncordoned' if off else 'cordoned'}")
            else:
                patch = {"spec": {"unschedulable": None if off else True}}
                self._change(node, name, patch, "uncordoned" if off else "cordoned")
        return 0

    def drain(self, words: list[str]) -> int:
        self.cordon(["cordon", *words[1:]])
        for name in [word.removeprefix("node/") for word in words[1:]]:
            Drainer(self.client, self.options, self.on).drain(name)
        return 0

    def certificate(self, words: list[str]) -> int:
        word = words[1] if len(words) > 1 else ""
        if word not in ("approve", "deny"):
            raise KubectlError(f'error: unknown command "{word}" for "kubectl certificate"')
        kind, state = kinds.KINDS["certificatesigningrequests"], {"approve": "Approved", "deny": "Denied"}[word]
        for name in [one.removeprefix("csr/") for one in words[2:]]:
            item = self.client.ask("GET", kind.path(name=name))
            condition = {"type": state, "status": "True", "reason": f"Kubectl{word.capitalize()}"}
            condition["message"] = f"This CSR was {state.lower()} by kubectl certificate {word}."
            conditions = item.get("status", {}).get("conditions", [])
            if state not in {one["type"] for one in conditions}:
                item["status"] = item.get("status", {}) | {"conditions": [*conditions, condition]}
                self.client.ask("PUT", f"{kind.path(name=name)}/approval", item)
            print(f"{self.title(kind)}/{name} {state.lower()}")
        return 0
