"""`k3s certificate check | rotate`: real certificates on disk, told as K3s tells them (pkg/cli/cert)."""

from __future__ import annotations

import base64
import json
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from k3s_standin import bootstrap, tokencmd
from k3s_standin.certs import RENEW_BELOW, common_name, load
from k3s_standin.log import Fatal, log
from k3s_standin.places import DATA, write

# Services and their files, below server/tls or agent.
_SERVICES = {
    "admin": ["client-admin"],
    "api-server": ["client-kube-apiserver", "serving-kube-apiserver"],
    "auth-proxy": ["client-auth-proxy"],
    "cloud-controller": ["client-k3s-cloud-controller"],
    "controller-manager": ["client-controller", "kube-controller-manager/kube-controller-manager"],
    "etcd": ["etcd/client", "etcd/peer-server-client", "etcd/server-client"],
    "scheduler": ["client-scheduler", "kube-scheduler/kube-scheduler"],
    "supervisor": ["client-supervisor"],
    "k3s-server": [],
    "kube-proxy": ["client-kube-proxy"],
    "kubelet": ["client-kubelet", "serving-kubelet"],
    "k3s-controller": ["client-k3s-controller"],
}


def run(argv: list[str]) -> int:
    """Run `check` or `rotate`."""
    options, words = _split(argv)
    data = Path(options.get("data-dir") or options.get("d") or DATA)
    services = options["service"].split(",") if options.get("service") else list(_SERVICES)
    for name in services:
        if name not in _SERVICES:
            raise Fatal(f"service {name} is not recognized")
    if words == ["rotate"]:
        return _rotate(data, services)
    if words == ["rotate-ca"]:
        return _rotate_ca(data, options)
    if words == ["check"]:
        return _check(data, services, options.get("output") or options.get("o") or "text")
    raise Fatal(f"Error: No help topic for '{' '.join(words)}'")


def _split(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    options, words, rest = {}, [], iter(argv)
    for word in rest:
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            options[name] = value if equals else next(rest, "")
        else:
            words.append(word)
    return options, words


def _files(data: Path, services: list[str]) -> list[Path]:
    names = [name for service in services for name in _SERVICES[service]]
    folders = (data / "server" / "tls", data / "agent")
    return [path for name in names for path in (folder / f"{name}.crt" for folder in folders) if path.exists()]


def _rotate(data: Path, services: list[str]) -> int:
    tls, server = data / "server" / "tls", (data / "server").exists()
    kept = f"Server detected, rotating {'agent and server' if server else 'agent'} certificates"
    log("info", kept if server else kept.replace("Server", "Agent"))
    backup = (data / ("server" if server else "agent")) / f"tls-{int(time.time())}"
    if server:
        shutil.copytree(tls, backup, dirs_exist_ok=True)
    backup.mkdir(exist_ok=True)
    for path in _files(data, services):
        for one in (path, path.with_suffix(".key")):
            if one.parent == data / "agent" and one.exists():
                shutil.copy2(one, backup)
    if server and "k3s-server" in services:
        write(tls / "dynamic-cert-regenerate", "")
        log("info", "Rotating dynamic listener certificate")
    for service in services:
        if _SERVICES[service]:
            log("info", f"Rotating certificates for {service}")
        for path in _files(data, [service]):
            path.unlink()
            path.with_suffix(".key").unlink(missing_ok=True)
    log(
        "info",
        f"Successfully backed up certificates to {backup}, please restart k3s server or agent to rotate certificates",
    )
    return 0


def _rotate_ca(data: Path, options: dict[str, str]) -> int:
    """Send what is in the folder to the server; what is missing there is only a warning."""
    found, tls = {}, Path(options.get("path") or data / "server" / "rotate-ca")
    for name, relative in bootstrap.FILES.items():
        path = tls / relative
        if not relative.startswith("tls/"):
            continue
        if path.exists():
            content = base64.b64encode(path.read_bytes()).decode()
            found[name] = {"Timestamp": datetime.now(UTC).isoformat(), "Content": content}
        else:
            log("warning", f"failed to stat {name}: stat {path}: no such file or directory")
    where = f"/v1-k3s/cert/cacerts?force={options.get('force') or 'false'}"
    asked = {"--data-dir": str(data)} | {f"--{key}": options[key] for key in ("server", "token") if key in options}
    try:
        tokencmd.ask_server(asked, "PUT", where, json.dumps(found).encode())
    except Fatal as error:
        raise Fatal(str(error).replace("Error: ", "Error: see server log for details: ", 1)) from None
    print("certificates saved to datastore")
    return 0


def _check(data: Path, services: list[str], form: str) -> int:
    server = (data / "server").exists()
    log(
        "info",
        f"{'Server' if server else 'Agent'} detected, checking {'agent and server' if server else 'agent'} certificates",
    )
    found = [_one(path.name, one) for path in _files(data, services) for one in _read(path)]
    if form in ("json", "yaml"):
        whole = {"Certificates": found}
        print(json.dumps(whole) if form == "json" else yaml.safe_dump(whole), end="\n" if form == "json" else "")
    elif form == "table":
        _table(found)
    elif form == "text":
        for item in found:
            _say(item)
    else:
        raise Fatal(f"Error: invalid output format {form}")
    return 0


def _say(item: dict[str, Any]) -> None:
    usage = ",".join(item["Usages"])
    head = f"{item['Filename']}: certificate {item['Subject']} ({usage})"
    said = {
        "OK": ("info", "is ok, expires at"),
        "WARNING": ("warning", f"will expire within {RENEW_BELOW.days} days at"),
        "EXPIRED": ("error", "has expired at"),
        "NOT YET VALID": ("error", "is not valid until"),
    }
    level, text = said[item["Status"]]
    log(level, f"{head} {text} {item['ExpiryTime']}")


def _table(found: list[dict[str, Any]]) -> None:
    rows = [["FILENAME", "SUBJECT", "USAGES", "EXPIRES", "RESIDUAL TIME", "STATUS"]]
    for item in found:
        days = item["ResidualTime"] // (86400 * 10**9)
        left = f"{days // 365} years" if days >= 730 else f"{days} days"
        rows.append(
            [item["Filename"], item["Subject"], ",".join(item["Usages"]), item["ExpiryTime"], left, item["Status"]]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ["-" * len(word) for word in rows[0]])
    for row in rows:
        sys.stdout.write("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def _read(path: Path) -> list[x509.Certificate]:
    return load(path.read_text())


def _one(filename: str, certificate: x509.Certificate) -> dict[str, Any]:
    now, first, last = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = ["ClientAuth" if one == ExtendedKeyUsageOID.CLIENT_AUTH else "ServerAuth" for one in usages]
    except x509.ExtensionNotFound:
        names = ["CertSign"]
    status = "EXPIRED" if now > last else "WARNING" if last - now < RENEW_BELOW else "OK"
    issuer = certificate.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    return {
        "Filename": filename,
        "Subject": common_name(certificate),
        "Issuer": str(issuer),
        "Usages": names,
        "ExpiryTime": last.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ResidualTime": int((last - now).total_seconds() * 1e9),
        "Status": "NOT YET VALID" if now < first else status,
    }
