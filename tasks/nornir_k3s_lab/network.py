"""The network of a lab: one bridge on this machine, one network namespace and one veth link per host."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

from nornir_k3s_lab.errors import LabError
from nornir_k3s_lab.model import short_id
from nornir_k3s_lab.mounts import unmount_below
from nornir_k3s_lab.system import run

INSIDE = "eth0"


def bridge_name(lab: str) -> str:
    """The name of the bridge of a lab."""
    return f"nk{short_id(lab)}"


def link_name(lab: str, host: str) -> str:
    """The name of a host's link, at the end of this machine."""
    return f"nk{short_id(lab)[:5]}{short_id(lab, host)}"


def _mac_address(*words: str) -> str:
    digits = "02" + short_id(*words) + "6b"
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def _ip(*words: str) -> list[dict[str, Any]]:
    text = run(["ip", "-json", *words]).stdout.strip()
    return [entry for entry in json.loads(text or "[]") if entry]


def check_free(lab: str, network: str, routes: list[dict[str, Any]] | None = None) -> None:
    """Raise LabError when this machine has another route to a part of the network."""
    wanted = ipaddress.IPv4Network(network)
    for route in _ip("-4", "route", "show") if routes is None else routes:
        device = route.get("dev", "")
        if route["dst"] == "default" or device == bridge_name(lab):
            continue
        if wanted.overlaps(ipaddress.IPv4Network(route["dst"])):
            raise LabError(
                f"the lab's network {network} overlaps the route of this machine to {route['dst']}"
                + (f" by {device}" if device else ""),
                hint="choose another network for user_defined.lab.network and the addresses of the hosts",
            )


def ensure_bridge(lab: str, gateway: str) -> None:
    """Create the bridge of a lab, with the address of this machine, unless it exists."""
    bridge = bridge_name(lab)
    if not link_exists(bridge):
        # A fixed MAC address: otherwise it changes with the ports of the bridge, and ARP entries of hosts get stale.
        run(["ip", "link", "add", bridge, "address", _mac_address(lab), "type", "bridge"])
    run(["ip", "link", "set", bridge, "alias", f"nornir-k3s lab {lab}"])
    run(["ip", "address", "replace", gateway, "dev", bridge])
    run(["ip", "link", "set", bridge, "up"])
    # Hosts reach the network of the lab only, even when this machine forwards packets for others.
    Path(f"/proc/sys/net/ipv4/conf/{bridge}/forwarding").write_text("0\n")


def link_exists(name: str) -> bool:
    """Whether this machine has an interface of this name."""
    return Path(f"/sys/class/net/{name}").exists()


def attach(lab: str, host: str, namespace: Path) -> None:
    """Create a new network namespace for a host, and its link to the bridge of the lab."""
    detach(lab, host, namespace)
    namespace.touch()
    run(["unshare", f"--net={namespace}", "true"])
    outside, bridge = link_name(lab, host), bridge_name(lab)
    inside = ["name", INSIDE, "address", _mac_address(lab, host), "netns", str(namespace)]
    run(["ip", "link", "add", outside, "type", "veth", "peer", *inside])
    run(["ip", "link", "set", outside, "alias", f"nornir-k3s lab {lab} {host}", "master", bridge, "up"])


def detach(lab: str, host: str, namespace: Path) -> None:
    """Remove the link and the network namespace of a host; the processes in it have ended."""
    if link_exists(link_name(lab, host)):
        run(["ip", "link", "delete", link_name(lab, host)])
    unmount_below(namespace)
    namespace.unlink(missing_ok=True)


def set_link(lab: str, host: str, state: str) -> None:
    """Set the link of a host `up` or `down`, at the end of this machine."""
    if not link_exists(link_name(lab, host)):
        raise LabError(f"{host} has no network link: it is powered off", hint="run `lab poweron`")
    run(["ip", "link", "set", link_name(lab, host), state])


def remove_links(lab: str) -> None:
    """Remove every interface of a lab from this machine: its name is in their alias."""
    own = f"nornir-k3s lab {lab}"
    for link in _ip("link", "show"):
        alias, name = link.get("ifalias", ""), link["ifname"]
        # A process that is killed after creating an interface leaves one without alias: go by its name.
        unnamed = not alias and name.startswith((bridge_name(lab), f"nk{short_id(lab)[:5]}"))
        if (alias == own or alias.startswith(own + " ") or unnamed) and link_exists(name):
            run(["ip", "link", "delete", name])


def bridges_are_filtered(setting: Path = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")) -> bool:
    """Whether the firewall of this machine filters bridged packets, as Docker and Kubernetes configure it."""
    return setting.exists() and setting.read_text().strip() == "1"
