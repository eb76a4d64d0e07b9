"""Items of list settings that have names: arguments of components, and labels and taints of nodes.

Source: kubernetes `pkg/kubelet`, the syntax of labels and taints and the labels that it may set itself.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

OF_NODES = ("node-label", "node-taint")
_LABEL = re.compile(
    r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?=([A-Za-z0-9]([-\w.]*[A-Za-z0-9])?)?$",
    re.ASCII,
)
_TAINT = re.compile(
    r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9][-\w.]*(=[-\w.]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$",
    re.ASCII,
)
# The kubelet refuses to start with labels of these domains, except those that it may set itself.
_RESERVED = re.compile(r"^([-a-z0-9.]*\.)?(kubernetes|k8s)\.io/")
_ALLOWED = re.compile(
    r"^(([-a-z0-9.]*\.)?(kubelet|node)\.kubernetes\.io/|(beta\.)?kubernetes\.io/(hostname|arch|os)="
    r"|node\.kubernetes\.io/instance-type=|topology\.kubernetes\.io/(zone|region)=)"
)


def by_name(key: str) -> bool:
    """Return whether the items of a setting have names, by which nearer ones replace others."""
    return key.endswith("-arg") or key in OF_NODES


def name_of(key: str, item: Any) -> str:  # noqa: ANN401 - an item of a setting
    """Return what identifies an item among the others of a list; NAME+=VALUE adds, and is another one."""
    if isinstance(item, Mapping):
        return json.dumps(item)  # a secret, whose name is not known
    text = str(item).removeprefix("--")
    if key == "node-taint":  # KEY=VALUE:EFFECT
        pair, _, effect = text.rpartition(":")
        return f"{pair.partition('=')[0]}:{effect}"
    return text.partition("=")[0]


def problems(key: str, items: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the items of node-label or node-taint."""
    names = Counter(name_of(key, item) for item in dict.fromkeys(items))
    yield from (f"{one!r} is given with two values" for one, number in names.items() if number > 1)
    for item in items:
        if key == "node-taint" and not _TAINT.match(item):
            yield f"{item!r} is not a taint: KEY=VALUE:NoSchedule, :PreferNoSchedule or :NoExecute"
        elif key == "node-label" and not _LABEL.match(item):
            yield f"{item!r} is not a label: KEY=VALUE" + ("; give several as a list" if "," in item else "")
        elif key == "node-label" and _RESERVED.match(item) and not _ALLOWED.match(item):
            yield f"the kubelet refuses to start with the label {item.partition('=')[0]!r}: set it with kubectl"
