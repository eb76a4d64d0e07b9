"""What `adopt` has found, as text for a terminal."""

from __future__ import annotations

from rich.console import Console

from nornir_k3s.model.adoption import Adoption
from nornir_k3s.report import terminal


def show(found: Adoption, console: Console, *, written: bool) -> None:
    """Print the hosts, the settings with their sources, what differs, what is missing, and what comes next."""

    def line(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    line(f"cluster {found.cluster}, K3s {found.version}")
    line(f"  datastore: {found.datastore}")
    line(f"  registration address: {found.registration}")
    line("hosts:")
    for name, host in found.hosts.items():
        words = [", ".join(host.roles) or "nothing", host.address, host.version, "" if host.taken else "not taken over"]
        line(f"  {name}: {', '.join(filter(None, words))}")
    if found.missing:
        line("nodes whose hosts were not given:")
    for node in found.missing:
        line(f"  {node.name}: {node.role}, {node.address or 'no address'}, {node.version}")
    if found.settings:
        line("settings:")
    for one in found.settings:
        line(f"  {one.place}: {one.key}: {one.value}" + (f"    ({one.origin})" if one.origin else ""))
    if found.differences:
        line("settings that must be the same on all servers, and differ:")
    for difference in found.differences:
        values = "; ".join(f"{name}: {value}" for name, value in difference.values.items())
        line(f"  {difference.setting}: {values}. The inventory has {difference.chosen}")
    terminal.show_notes(found.notes, console)
    line("written:" if written else "would be written:")
    for path in found.files:
        line(f"  {path}")
    for path in found.secrets:
        line(f"  {path} (secret, 0600)")
    if found.plan:
        line("a deploy would change:")
        terminal.show_plan(found.plan, console)
    line(f"next: {found.next}")
