"""The lab's network: one bridge on the machine, one network namespace and one link per host."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

from nornir_k3s_lab.errors import LabError
from nornir_k3s_lab.model import short_id
from nornir_k3s_lab.system import run, unmount_below

INSIDE = "eth0"


def bridge_name(lab: str) -> str:
    """The name of a lab's bridge."""
    return f"nk{short_id(lab)}"


def link_name(lab: str, host: str) -> str:
    """The name of the machine's end of a host's link."""
    return f"nk{short_id(lab)[:5]}{short_id(lab, host)}"


def _hardware_address(*words: str) -> str:
    digits = "02" + short_id(*words) + "6b"
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def _ip(*words: str) -> list[dict[str, Any]]:
    text = run(["ip", "-json", *words]).stdout.strip()
    return [entry for entry in json.loads(text or "[]") if entry]


def refuse_taken(lab: str, network: str, routes: list[dict[str, Any]] | None = None) -> None:
    """Raise LabError when the machine routes a part of the network elsewhere already."""
    wanted = ipaddress.IPv4Network(network)
    for route in _ip("-4", "route", "show") if routes is None else routes:
        device = route.get("dev", "")
        if route["dst"] == "default" or device == bridge_name(lab):
            continue
        if wanted.overlaps(ipaddress.IPv4Network(route["dst"])):
            raise LabError(
                f"the lab's network {network} is taken: this machine routes {route['dst']} to {device or 'elsewhere'}",
                hint="choose another range for user_defined.lab.network and the hosts' addresses",
            )


def ensure_bridge(lab: str, gateway: str) -> None:
    """Make the lab's bridge with the machine's own address, unless it is there."""
    bridge = bridge_name(lab)
    if not link_exists(bridge):
        # A fixed hardware address: a bridge without one changes it with its ports, and neighbours lose the way.
        run(["ip", "link", "add", bridge, "address", _hardware_address(lab), "type", "bridge"])
    run(["ip", "link", "set", bridge, "alias", f"nornir-k3s lab {lab}"])
    run(["ip", "address", "replace", gateway, "dev", bridge])
    run(["ip", "link", "set", bridge, "up"])
    # Hosts have no network but the lab's, even on a machine that forwards for others.
    Path(f"/proc/sys/net/ipv4/conf/{bridge}/forwarding").write_text("0\n")


def link_exists(name: str) -> bool:
    """Whether the machine has an interface of this name."""
    return Path(f"/sys/class/net/{name}").exists()


def attach(lab: str, host: str, namespace: Path) -> None:
    """Make a fresh network namespace for a host, and its link into the lab's bridge."""
    detach(lab, host, namespace)
    namespace.touch()
    run(["unshare", f"--net={namespace}", "true"])
    outside, bridge = link_name(lab, host), bridge_name(lab)
    inside = ["name", INSIDE, "address", _hardware_address(lab, host), "netns", str(namespace)]
    run(["ip", "link", "add", outside, "type", "veth", "peer", *inside])
    run(["ip", "link", "set", outside, "alias", f"nornir-k3s lab {lab} {host}", "master", bridge, "up"])


def detach(lab: str, host: str, namespace: Path) -> None:
    """Remove a host's link and its network namespace; the processes in it have ended."""
    if link_exists(link_name(lab, host)):
        run(["ip", "link", "delete", link_name(lab, host)])
    unmount_below(namespace)
    namespace.unlink(missing_ok=True)


def set_link(lab: str, host: str, state: str) -> None:
    """Plug a host's link in (`up`) or pull it out (`down`), from the machine's side."""
    if not link_exists(link_name(lab, host)):
        raise LabError(f"{host} is switched off: it has no link to set {state}")
    run(["ip", "link", "set", link_name(lab, host), state])


def remove_links(lab: str) -> None:
    """Remove every interface of the machine that belongs to a lab: they carry its name as alias."""
    mine = f"nornir-k3s lab {lab}"
    for link in _ip("link", "show"):
        alias, name = link.get("ifalias", ""), link["ifname"]
        # A kill between making and naming an interface leaves one without alias: its name tells as much.
        unnamed = not alias and name.startswith((bridge_name(lab), f"nk{short_id(lab)[:5]}"))
        if (alias == mine or alias.startswith(mine + " ") or unnamed) and link_exists(name):
            run(["ip", "link", "delete", name])


def bridges_are_filtered(setting: Path = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")) -> bool:
    """Whether this machine sends what passes its bridges through its firewall, as Docker and Kubernetes ask for."""
    return setting.exists() and setting.read_text().strip() == "1"
