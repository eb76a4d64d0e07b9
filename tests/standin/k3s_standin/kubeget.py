"""`k3s kubectl`: the verbs that only read."""

from __future__ import annotations

import json
import sys
import time
from typing import Any
from urllib.parse import quote, urlencode

import yaml

from k3s_standin import jsonpath, kinds
from k3s_standin.kinds import Kind
from k3s_standin.kubeclient import Client, KubectlError, failure, parse_seconds
from k3s_standin.printers import table

Item = dict[str, Any]
MERGE = "application/merge-patch+json"


class Getter:
    """One command."""

    def __init__(self, options: dict[str, str], version: str) -> None:
        self.options, self.own_version = options, version
        self.client = Client(options)
        self.namespace = options.get("--namespace") or self.client.config.get("namespace") or "default"

    def on(self, name: str) -> bool:
        return self.options.get(name, "false") not in ("false", "none")

    def kind(self, word: str) -> Kind:
        kind = kinds.find(word)
        if kind is None:
            # Real kubectl learns the kinds from the server first: without one it fails for another reason.
            self.client.ask("GET", "/api/v1")
            raise KubectlError(f'error: the server doesn\'t have a resource type "{word}"')
        return kind

    def targets(self, words: list[str]) -> list[tuple[Kind, str]]:
        """Return the objects that `KIND NAME…` or `KIND/NAME…` mean."""
        if not words:
            raise KubectlError("error: You must specify the type of resource to get.")
        if "/" in words[0]:
            pairs = [word.partition("/") for word in words]
            return [(self.kind(kind), name) for kind, _, name in pairs]
        kind = self.kind(words[0])
        if len(words) > 1:
            return [(kind, name) for name in words[1:]]
        selected = self.on("--all") or "--selector" in self.options
        return [(kind, item["metadata"]["name"]) for item in self._list(kind)] if selected else []

    def path(self, kind: Kind, name: str = "") -> str:
        everywhere = self.on("--all-namespaces") and not name
        return kind.path("" if everywhere else self.namespace, quote(name))

    def _list(self, kind: Kind) -> list[Item]:
        query = {"labelSelector": self.options.get("--selector"), "fieldSelector": self.options.get("--field-selector")}
        given = {key: value for key, value in query.items() if value}
        path = self.path(kind) + (f"?{urlencode(given)}" if given else "")
        items: list[Item] = self.client.ask("GET", path)["items"]
        return items

    def get(self, words: list[str]) -> int:
        if "--raw" in self.options:
            return self._raw(self.options["--raw"])
        if self.on("--watch"):
            raise KubectlError("error: --watch is not in this stand-in")
        named = len(words) > 2 or "/" in (words[1] if len(words) > 1 else "")
        if not named:
            if len(words) < 2:
                raise KubectlError("error: You must specify the type of resource to get.")
            kind = self.kind(words[1])
            return self._show(kind, self._list(kind), listed=True)
        found: list[Item] = []
        failed: list[KubectlError] = []
        kind = self.kind(words[1].partition("/")[0])
        for one, name in self.targets(words[1:]):
            try:
                found.append(self.client.ask("GET", self.path(one, name)))
            except KubectlError as error:
                if error.reason != "NotFound" or not self.on("--ignore-not-found"):
                    failed.append(error)
        if found or not failed:
            self._show(kind, found, listed=len(found) > 1)
        sys.stderr.write("".join(f"{one}\n" for one in failed))
        return 1 if failed else 0

    def _raw(self, path: str) -> int:
        code, body = self.client.call("GET", path)
        if code >= 400:
            raise failure(code, body)
        sys.stdout.write(body.decode())
        return 0

    def _show(self, kind: Kind, items: list[Item], *, listed: bool) -> int:
        form, _, template = self.options.get("--output", "").partition("=")
        if not items and not listed:
            return 0
        items = [{"apiVersion": kind.api_version, "kind": kind.kind} | item for item in items]
        whole: Item = {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}
        data = whole if listed else items[0]
        if form == "json":
            print(json.dumps(data, indent=4, ensure_ascii=False))
        elif form == "yaml":
            print(yaml.safe_dump(data, allow_unicode=True), end="")
        elif form == "name":
            print("".join(f"{self.title(kind)}/{item['metadata']['name']}\n" for item in items), end="")
        elif form == "jsonpath":
            self._template(template, data)
        elif form not in ("", "wide"):
            allowed = "custom-columns,go-template,json,jsonpath,name,wide,yaml"
            text = f'unable to match a printer suitable for the output format "{form}", allowed formats are: {allowed}'
            raise KubectlError(f"error: {text}")
        elif not items:
            where = f" in {self.namespace} namespace" if kind.namespaced and not self.on("--all-namespaces") else ""
            sys.stderr.write("" if self.on("--ignore-not-found") else f"No resources found{where}\n")
        else:
            spaces = kind.namespaced and self.on("--all-namespaces")
            options = {"headers": not self.on("--no-headers"), "labels": self.on("--show-labels"), "spaces": spaces}
            sys.stdout.write(table(kind, items, wide=form == "wide", **options))
        return 0

    def _template(self, template: str, data: Item) -> None:
        try:
            sys.stdout.write(jsonpath.render(template, data))
        except jsonpath.TemplateError as error:
            raise KubectlError(f"error: error executing jsonpath {json.dumps(template)}: {error}") from None

    @staticmethod
    def title(kind: Kind) -> str:
        return f"{kind.singular}.{kind.group}" if kind.group else kind.singular

    def wait(self, words: list[str]) -> int:
        wanted = self.options.get("--for", "")
        deadline = time.monotonic() + parse_seconds(self.options.get("--timeout", "30s"))
        targets = self.targets(words[1:])
        if not targets:
            raise KubectlError("error: no matching resources found")
        for kind, name in targets:
            while not self._fulfils(kind, name, wanted):
                if time.monotonic() > deadline:
                    raise KubectlError(f"error: timed out waiting for the condition on {kind.plural}/{name}")
                time.sleep(0.3)
            print(f"{self.title(kind)}/{name} condition met")
        return 0

    def _fulfils(self, kind: Kind, name: str, wanted: str) -> bool:
        try:
            item = self.client.ask("GET", self.path(kind, name))
        except KubectlError as error:
            if error.reason == "NotFound" and wanted == "delete":
                return True
            raise
        word, _, rest = wanted.partition("=")
        if word == "condition":
            kind_, _, state = rest.partition("=")
            found = {c["type"].lower(): c["status"].lower() for c in item.get("status", {}).get("conditions", [])}
            return found.get(kind_.lower()) == (state or "true").lower()
        if word == "jsonpath":
            path, _, value = rest.rpartition("}=")
            return jsonpath.render(path.strip("'\"") + "}", item) == value
        return False

    def version(self, _: list[str]) -> int:
        print(f"Client Version: {self.own_version}\nKustomize Version: v5.7.1")
        if not self.on("--client"):
            print(f"Server Version: {self.client.ask('GET', '/version')['gitVersion']}")
        return 0

    def cluster_info(self, _: list[str]) -> int:
        self.client.ask("GET", "/api/v1/namespaces/kube-system/services")
        print(f"Kubernetes control plane is running at {self.client.server}")
        return 0
