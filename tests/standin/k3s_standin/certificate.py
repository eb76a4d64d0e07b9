"""`k3s certificate check`: real certificates on disk, told as K3s tells them."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from k3s_standin.log import log


def run(argv: list[str]) -> int:
    """Run `check` or `rotate`."""
    data = Path("/var/lib/rancher/k3s")
    if argv[:1] == ["rotate"]:
        folder = data / "server" / "tls"
        shutil.copytree(folder, f"{folder}-{int(time.time())}")
        for path in [*folder.glob("client-*.crt"), *folder.glob("serving-*.crt")]:
            if "-ca" not in path.name:
                path.unlink()
        return 0
    server = (data / "server").exists()
    log("info", f"{'Server' if server else 'Agent'} detected, checking agent and server certificates")
    paths = sorted((data / "server" / "tls").glob("*.crt")) if server else []
    paths += sorted((data / "agent").glob("client-kube*.crt")) + sorted((data / "agent").glob("serving-*.crt"))
    found = [_one(path.name, one) for path in paths if "-ca" not in path.name for one in _read(path)]
    form = next((a.partition("=")[2] or argv[i + 1] for i, a in enumerate(argv) if a.startswith("--output")), "text")
    if form == "json":
        print(json.dumps({"Certificates": found}, indent=1))
        return 0
    for item in found:
        usage = ", ".join(item["Usages"])
        log(
            "info",
            f"{item['Filename']}: certificate {item['Subject']} ({usage}) is ok, expires at {item['ExpiryTime']}",
        )
    return 0


def _read(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def _name(name: x509.Name) -> str:
    return str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _one(filename: str, certificate: x509.Certificate) -> dict[str, Any]:
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    try:
        usages = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        names = ["ClientAuth" if u == ExtendedKeyUsageOID.CLIENT_AUTH else "ServerAuth" for u in usages]
    except x509.ExtensionNotFound:
        names = ["CertSign"]
    days = left.total_seconds() / 86400
    return {
        "Filename": filename,
        "Subject": _name(certificate.subject),
        "Issuer": _name(certificate.issuer),
        "Usages": names,
        "ExpiryTime": certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ResidualTime": int(left.total_seconds() * 1e9),
        "Status": "EXPIRED" if days < 0 else "WARNING" if days < 120 else "OK",
    }
