"""The secrets of a cluster: resolved from their references, or generated and kept on the controller."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nornir_k3s import k3s
from nornir_k3s.errors import K3sError
from nornir_k3s.inventory.problems import Problems
from nornir_k3s.inventory.schema import ClusterModel
from nornir_k3s.model.endpoint import parse as parse_endpoint
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.settings import DatastoreFields, ExternalDatastore
from nornir_k3s.state.store import Store


def resolve(model: ClusterModel, store: Store, problems: Problems) -> dict[str, Secret | None]:
    """Return the secrets by name; those that are missing, or that K3s would refuse, become problems."""
    external = model.datastore if isinstance(model.datastore, ExternalDatastore) else None
    wanted: dict[str, Callable[[], Secret | None]] = {
        "token": lambda: store.secret("token", model.token, make=k3s.new_token),
        "agent_token": lambda: store.secret("agent-token", model.agent_token) if model.agent_token else None,
        "password": lambda: _password(model, store),
        "endpoint": lambda: store.secret("endpoint", external.endpoint) if external else None,
    }
    for file in model.files:
        if file.secret:
            wanted[f"file {file.path}"] = partial(store.secret, f"the text of {file.path}", file.secret)
    paths = {"password": ("datastore", "password"), "endpoint": ("datastore", "endpoint")}
    found: dict[str, Secret | None] = {}
    for key, get in wanted.items():
        path = paths.get(key, (key.partition(" ")[0].replace("file", "files"),))
        try:
            found[key] = get() or None
        except K3sError as error:
            problems.cluster(error.message, *path)
            continue
        secret = found[key]
        if secret and (problem := _refused(key, secret)):
            problems.cluster(problem, *path)
    return found


def _refused(key: str, secret: Secret) -> str | None:
    if key == "endpoint":
        try:
            parse_endpoint(secret)
        except ValueError as error:
            return str(error)
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
