"""The benchmark's eight hosts, for pyinfra; BENCH names the folder with keys and known hosts."""

import os
from pathlib import Path

_folder = Path(os.environ["BENCH"])
_login = {
    "ssh_key": str(_folder / "lab" / "id_ed25519"),
    "ssh_known_hosts_file": str(_folder / "lab" / "known_hosts"),
    "ssh_strict_host_key_checking": "yes",
}
_places = {name: f"10.78.0.{11 + n}" for n, name in enumerate(("db1", "s1", "s2", "s3", "a1", "a2", "lb1", "lb2"))}


def _host(name: str) -> tuple[str, dict[str, object]]:
    more: dict[str, object] = {"ssh_hostname": _places[name], "ssh_user": "ops", "_sudo": True}
    if name == "a2":
        more |= {"ssh_user": "root", "_sudo": False}
    if name == "s3":
        more["_sudo_password"] = (_folder / "lab" / "sudo-password").read_text().strip()
    return name, {**_login, **more}


datastore = [_host("db1")]
servers = [_host(name) for name in ("s1", "s2", "s3")]
agents = [_host(name) for name in ("a1", "a2")]
lb = [_host(name) for name in ("lb1", "lb2")]
