"""The secrets of a cluster: resolved from their references, or generated and kept on the controller."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from nornir_k3s import k3s
from nornir_k3s.errors import K3sError
from nornir_k3s.inventory.problems import Problems
from nornir_k3s.inventory.schema import ClusterModel
from nornir_k3s.model.cluster import Member
from nornir_k3s.model.endpoint import parse as parse_endpoint
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.settings import DatastoreFields, ExternalDatastore
from nornir_k3s.model.value_types import url_problem
from nornir_k3s.state.store import Store


def resolve(model: ClusterModel, store: Store, problems: Problems) -> dict[str, Secret | None]:
    """Return the secrets by name; those that are missing, or that K3s would refuse, become problems."""
    external = model.datastore if isinstance(model.datastore, ExternalDatastore) else None
    wanted: dict[str, Callable[[], Secret | None]] = {
        "token": lambda: store.secret("token", model.token, make=k3s.new_token),
        "agent_token": lambda: store.secret("agent-token", model.agent_token) if model.agent_token else None,
        "password": lambda: _password(model, store),
        "endpoint": lambda: store.secret("endpoint", external.endpoint) if external else None,
        **{name: partial(_given, store, name, value) for name, value in _urls(model).items()},
    }
    if isinstance(model.registries, dict):
        wanted["registries"] = partial(store.secret, "registries", model.registries)
    for file in model.files:
        if file.secret:
            wanted[f"file {file.path}"] = partial(store.secret, f"the text of {file.path}", file.secret)
    paths = {"password": ("datastore", "password"), "endpoint": ("datastore", "endpoint")}
    found: dict[str, Secret | None] = {}
    for key, get in wanted.items():
        path = paths.get(key) or tuple(key.partition(" ")[0].replace("file", "files").split("."))
        try:
            found[key] = get() or None
        except K3sError as error:
            problems.cluster(error.message, *path)
            continue
        secret = found[key]
        if secret and (problem := _refused(key, secret)):
            problems.cluster(problem, *path)
    return found


def _urls(model: ClusterModel) -> dict[str, Any]:
    urls = {"artifacts.url": model.artifacts.url}
    if model.proxy:
        urls |= {"proxy.http": model.proxy.http, "proxy.https": model.proxy.https}
    return {name: value for name, value in urls.items() if value is not None}


def _given(store: Store, name: str, value: str | dict[str, Any]) -> Secret:
    return store.secret(name, value) if isinstance(value, dict) else Secret(value)


def _refused(key: str, secret: Secret) -> str | None:
    if key == "endpoint":
        try:
            parse_endpoint(secret)
        except ValueError as error:
            return str(error)
    if key in ("proxy.http", "proxy.https"):
        return url_problem(secret.reveal()) or None
    if key == "password" and not secret.reveal().isprintable():
        return "the password has control characters or line breaks in it"
    return k3s.token_problem(secret) if key in ("token", "agent_token") else None


def _password(model: ClusterModel, store: Store) -> Secret | None:
    if isinstance(model.datastore, ExternalDatastore):
        return None  # it is part of the endpoint
    if model.datastore.kind == "etcd":
        return None  # it knows certificates only
    if isinstance(model.datastore, DatastoreFields):
        return store.secret("datastore-password", model.datastore.password)
    return store.secret("datastore-password", model.datastore.password, make=k3s.new_token)


class SettingSecrets:
    """Replaces the references in K3s settings by their secrets; each reference is resolved once."""

    def __init__(self, store: Store, problems: Problems) -> None:
        self._store, self._problems = store, problems
        self._known: dict[str, Secret] = {}

    def model(self, model: ClusterModel) -> ClusterModel:
        """Return the cluster's settings with the secrets of `server` and `agent` in them."""
        server = self._settings(model.server, lambda key, text: self._problems.cluster(text, "server", key))
        agent = self._settings(model.agent, lambda key, text: self._problems.cluster(text, "agent", key))
        return model.model_copy(update={"server": server, "agent": agent})

    def member(self, member: Member) -> Member:
        """Return a host with the secrets of its settings in them."""

        def add(key: str, text: str) -> None:
            self._problems.host(member.name, f"k3s: `{key}`: {text}", "data", "k3s", key)

        return replace(member, settings=self._settings(member.settings, add))

    def _settings(self, settings: Mapping[str, Any], add: Callable[[str, str], None]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in settings.items():
            try:
                found[key] = [self._one(item) for item in value] if isinstance(value, list) else self._one(value)
            except K3sError as error:
                add(key, error.message)
        return found

    def _one(self, item: Any) -> Any:  # noqa: ANN401 - a setting
        if not isinstance(item, Mapping):
            return item
        name = json.dumps(item)
        if name not in self._known:
            self._known[name] = self._store.secret("a setting", item)
        return self._known[name]
