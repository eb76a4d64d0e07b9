"""TLS to a datastore, verified as Go's library does for K3s, and its problems.

Sources: kine `pkg/tls`, `pkg/drivers/mysql`, `pkg/drivers/pgsql` (which files turn verification on); Go `crypto/x509`
(a name counts only as a subject alternative name; every certificate of the CA file is a root).
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from nornir_k3s.datastore_probe.answers import ProbeFailed, problem
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


class _Socket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        certificate = self.getpeercert()
        if certificate and isinstance(self.context, Context):
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
            made.load_verify_locations(str(ca))
        elif verify:
            made.load_default_certs()
        if certificate:
            # With a password OpenSSL does not ask for one on the terminal; K3s cannot read a key with a passphrase.
            made.load_cert_chain(str(certificate), str(key) if key else None, password="")
    except (OSError, ssl.SSLError) as error:
        raise ProbeFailed(_unusable(error)) from None
    return made


def _unusable(error: OSError) -> Finding:
    reason = str(getattr(error, "reason", None) or error.strerror or "")
    what = f"the TLS files of the datastore cannot be read: {reason or 'no certificate in them'}"
    if "KEY_VALUES_MISMATCH" in reason or "KEY_TYPE_MISMATCH" in reason:
        what = "keyfile is not the key of certfile"
    elif isinstance(error, FileNotFoundError):
        what = "a TLS file of the datastore is missing"
    return problem("datastore-tls", what, "a CA, and a key that matches its certificate", "check the files")


def handshake_failed(address: str, error: ssl.SSLError) -> Finding:
    """Return the finding for a failed TLS handshake."""
    reason = getattr(error, "verify_message", "") or (error.reason or "").replace("_", " ").lower() or str(error)
    remedy = next((remedy for words, remedy in _REMEDIES if words in reason.lower()), "check that this port has TLS")
    found = f"the TLS handshake with the datastore at {address} failed: {reason}"
    return problem("datastore-tls", found, "a certificate of the CA that the inventory names", remedy)


def expiry_warning(address: str, used: Context | None) -> list[Finding]:
    """Return a warning if the server's certificate expires soon."""
    if used is None or not used.expires or (left := used.expires - time.time()) > EXPIRES_SOON:
        return []
    found = f"the certificate of the datastore at {address} expires in {left / 86400:.0f} days"
    remedy = "renew it: K3s cannot connect after that"
    return [problem("datastore-tls", found, f"at least {EXPIRES_SOON / 86400:.0f} days", remedy, "warning")]
