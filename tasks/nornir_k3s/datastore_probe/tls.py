"""TLS to a datastore, verified as Go's library does for K3s, and its problems.

Sources: kine `pkg/tls`, `pkg/drivers/mysql`, `pkg/drivers/pgsql` (which files turn verification on); Go `crypto/x509`
(a name counts only as a subject alternative name; every certificate of the CA file is a root).
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from nornir_k3s.datastore_probe.answers import ProbeFailed, problem
from nornir_k3s.model.address import is_address
from nornir_k3s.model.finding import Finding

EXPIRES_SOON = 14 * 86400  # seconds
_REMEDIES = (
    ("has expired", "renew it: K3s does not connect to this datastore"),
    ("not valid for", "use a name or address that its certificate contains, or add this one to the certificate"),
    ("mismatch", "use a name or address that its certificate contains, or add this one to the certificate"),
    ("issuer", "check that `cafile` is the CA that signed the certificate"),
    ("self-signed", "check that `cafile` is the CA that signed the certificate"),
    ("certificate required", "the datastore requires a client certificate: set `certfile` and `keyfile`"),
    ("bad certificate", "the datastore refuses the client certificate: check `certfile` and `keyfile`"),
    ("unknown ca", "the datastore does not trust the client certificate's CA: check `certfile` and `keyfile`"),
)


class Context(ssl.SSLContext):
    """A client's TLS context that records when the server's certificate expires."""

    expires: float = 0  # seconds since 1970; 0 without a verified certificate
    names: tuple[str, ...] | None = None  # of the server's certificate; asked for with `inspecting`
    with_ca = False  # verified with the inventory's CA, not the system's
    inspecting = False  # the connection ends before a password is sent


class _Socket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        certificate = self.getpeercert()
        if certificate and isinstance(self.context, Context):
            if self.context.inspecting:
                alternatives = certificate.get("subjectAltName", ())
                self.context.names = tuple(str(pair[1]) for pair in alternatives)
                raise ssl.SSLError("only the certificate was wanted")
            self.context.expires = ssl.cert_time_to_seconds(str(certificate["notAfter"]))


def context(ca: Path | None, certificate: Path | None, key: Path | None, *, verify: bool = True) -> Context:
    """Return the TLS context for a datastore.

    Arguments:
        ca, certificate, key: PEM files; None where the inventory names none.
        verify: Verify the server's certificate, against the system's CAs without `ca`.

    Raises:
        ProbeFailed: A file cannot be read, or the key does not match the certificate.
    """
    made = Context(ssl.PROTOCOL_TLS_CLIENT)
    made.sslsocket_class = _Socket
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.hostname_checks_common_name = False
    if not verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    try:
        if ca:
            made.with_ca = True
            made.load_verify_locations(str(ca))
        elif verify:
            made.load_default_certs()
        if certificate:
            # With a password OpenSSL does not ask for one on the terminal; K3s cannot read a key with a passphrase.
            made.load_cert_chain(str(certificate), str(key) if key else None, password="")
    except (OSError, ssl.SSLError) as error:
        raise ProbeFailed(_unusable(error)) from None
    return made


def is_other_name(error: ssl.SSLError) -> bool:
    """Return whether the certificate is right but for its names."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in (62, 64)  # X509_V_ERR_*_MISMATCH


def inspecting(made: Context) -> Context:
    """Let a context verify everything but the name, record the names, and end the connection after the handshake."""
    made.check_hostname, made.inspecting = False, True
    return made


def _unusable(error: OSError) -> Finding:
    reason = str(getattr(error, "reason", None) or error.strerror or "")
    what = f"the TLS files of the datastore cannot be read: {reason or 'no certificate in them'}"
    if "KEY_VALUES_MISMATCH" in reason or "KEY_TYPE_MISMATCH" in reason:
        what = "keyfile is not the key of certfile"
    elif isinstance(error, FileNotFoundError):
        what = "a TLS file of the datastore is missing"
    return problem("datastore-tls", what, "a CA, and a key that matches its certificate", "check the files")


def handshake_failed(address: str, error: ssl.SSLError, names: tuple[str, ...] | None = None) -> Finding:
    """Return the finding for a failed TLS handshake.

    Arguments:
        address: Of the datastore.
        error: What failed.
        names: Of the server's certificate, if it is known that they are the problem.
    """
    reason = getattr(error, "verify_message", "") or (error.reason or "").replace("_", " ").lower() or str(error)
    remedy = next((remedy for words, remedy in _REMEDIES if words in reason.lower()), "check that this port has TLS")
    wanted = "a certificate of the CA that the inventory names"
    if names:
        reason, wanted = f"its certificate is for {', '.join(names)}", "a certificate for the name in the inventory"
    elif names is not None:
        host = address.rpartition(":")[0].strip("[]")
        reason = "its certificate has no subjectAltName (MySQL's own one has none), and K3s ignores the common name"
        wanted = f"a certificate for {host}"
        remedy = (
            "make one, which is its own CA: openssl req -x509 -newkey rsa:3072 -nodes -days 3650 -subj /CN=datastore"
            f" -addext subjectAltName={'IP' if is_address(host) else 'DNS'}:{host}"
            " -keyout server-key.pem -out server-cert.pem"
        )
    found = f"the TLS handshake with the datastore at {address} failed: {reason.rstrip('.')}"
    return problem("datastore-tls", found, wanted, remedy)


def expiry_warning(address: str, used: Context | None) -> list[Finding]:
    """Return a warning if the server's certificate expires soon."""
    if used is None or not used.expires or (left := used.expires - time.time()) > EXPIRES_SOON:
        return []
    found = f"the certificate of the datastore at {address} expires in {left / 86400:.0f} days"
    remedy = "renew it: K3s cannot connect after that"
    return [problem("datastore-tls", found, f"at least {EXPIRES_SOON / 86400:.0f} days", remedy, "warning")]
