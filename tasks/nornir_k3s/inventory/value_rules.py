"""Values of single K3s settings that K3s takes and then does not start with, or does not use as meant.

Sources: docs.k3s.io `cli/server.md`, `cli/agent.md`; k3s `pkg/cli/server/server.go`; klog's flag `vmodule`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping

from nornir_k3s import k3s_settings
from nornir_k3s.model.address import is_address

_FILES = k3s_settings.where(file=True)
_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_NAME}(\.{_NAME})*", re.IGNORECASE)
_SAN = re.compile(r"(\*\.)?[a-z0-9_]([-a-z0-9_.]{0,251}[a-z0-9_])?", re.IGNORECASE)
_REGISTRY = re.compile(r"([A-Za-z0-9][-A-Za-z0-9.]*|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?(/[a-z0-9][-a-z0-9._]*)*/?")
# Addresses of the host itself, and the special ones that cannot be meant.
_OWN_ADDRESS = frozenset(("node-ip", "node-external-ip", "advertise-address"))
ANY = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


def problems(key: str, value: str) -> Iterator[str]:
    """Yield what is wrong with one value of a setting.

    Arguments:
        value: One item, where the setting is a list.
    """
    if key in _FILES and not value.startswith("/"):
        yield f"{value!r} is not the path of a file on the hosts: a relative path means nothing to K3s; begin with /"
    elif key in _OWN_ADDRESS or key == "bind-address":
        yield from _address(key, value)
    elif rule := _RULES.get(key):
        fits, text = rule
        if not fits(value):
            yield text if "@" in value else f"{value!r}: {text}"  # it may be a user and password


_LOOPBACK = ("127.0.0.1", "127.0.1.1", "::1")  # others of 127.0.0.0/8 may be hosts of a trial on one machine


def _address(key: str, value: str) -> Iterator[str]:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return  # that is told as such
    if value in _LOOPBACK or address.is_multicast or (address.is_unspecified and key in _OWN_ADDRESS):
        yield f"other hosts cannot connect to {value}: `{key}` is an address of the host"


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda value: pattern.fullmatch(value) is not None


_IS_REGISTRY = (_matches(_REGISTRY), "give a registry as HOST or HOST:PORT, without scheme, user and password")
_RULES: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "vmodule": (
        _matches(re.compile(r"[^\s=,]+=[0-9]+(,[^\s=,]+=[0-9]+)*")),
        "`vmodule` is PATTERN=NUMBER, with commas between several",
    ),
    "cluster-domain": (
        lambda value: _DOMAIN.fullmatch(value) is not None and not value.isdigit(),
        "`cluster-domain` is a DNS name without a dot at its end, as cluster.local",
    ),
    "servicelb-namespace": (_matches(re.compile(_NAME)), "it is not the name of a namespace"),
    "tls-san": (
        lambda value: is_address(value) or (_SAN.fullmatch(value) is not None and not value.isdigit()),
        "`tls-san` takes DNS names and addresses, without scheme and port",
    ),
    "system-default-registry": _IS_REGISTRY,
    "airgap-extra-registry": _IS_REGISTRY,
    "flannel-iface": (_matches(re.compile(r"[^\s/,]{1,15}")), "`flannel-iface` is the name of one interface"),
}
