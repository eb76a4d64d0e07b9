"""Trust: the TLS that a datastore is spoken to with, judged as Go's library does for K3s, and what is wrong with it.

Sources: kine `pkg/tls`, `pkg/drivers/mysql`, `pkg/drivers/pgsql` (which files turn verification on); Go `crypto/x509`
(a name counts only as a subject alternative name; every certificate of the CA file is a root).
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from nornir_k3s.datastore_probe.answers import ProbeFailed, problem
from nornir_k3s.model.finding import Finding

NEAR = 14 * 86400  # seconds
_TODO = (
    ("has expired", "renew it: K3s does not connect to such a datastore"),
    ("not valid for", "name the datastore by one of its certificate's names, or add this one (an address counts too)"),
    ("mismatch", "name the datastore by one of its certificate's names, or add this one (an address counts too)"),
    ("issuer", "check that `cafile` is the CA which signed it"),
    ("self-signed", "check that `cafile` is the CA which signed it"),
    ("certificate required", "it wants a client certificate: give `certfile` and `keyfile`"),
    ("bad certificate", "it refuses the client certificate: check `certfile` and `keyfile`"),
    ("unknown ca", "it does not trust the client certificate's CA: check `certfile` and `keyfile`"),
)


class Context(ssl.SSLContext):
    """A client's context that notes when the certificate it was shown ends."""

    ends: float = 0  # seconds since 1970; 0: none was verified


class _Noting(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        shown = self.getpeercert()
        if shown and isinstance(self.context, Context):
            self.context.ends = ssl.cert_time_to_seconds(str(shown["notAfter"]))


def context(ca: Path | None, certificate: Path | None, key: Path | None, *, verify: bool = True) -> Context:
    """Return how the datastore is spoken to.

    Raises:
        ProbeFailed: The files cannot be read, or do not fit each other.
    """
    made = Context(ssl.PROTOCOL_TLS_CLIENT)
    made.sslsocket_class = _Noting
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
            # A key with a passphrase must not ask for it on the terminal; K3s could not read it either.
            made.load_cert_chain(str(certificate), str(key) if key else None, password="")
    except (OSError, ssl.SSLError) as error:
        raise ProbeFailed(_unusable(error)) from None
    return made


def _unusable(error: OSError) -> Finding:
    reason = str(getattr(error, "reason", None) or error.strerror or "")
    what = f"the TLS files of the datastore cannot be used: {reason or 'no certificate is in them'}"
    if "KEY_VALUES_MISMATCH" in reason or "KEY_TYPE_MISMATCH" in reason:
        what = "keyfile is not the key of certfile"
    elif isinstance(error, FileNotFoundError):
        what = "a TLS file of the datastore is missing"
    return problem("datastore-tls", what, "a CA, and a key that fits its certificate", "check the files")


def refused(place: str, error: ssl.SSLError) -> Finding:
    """Return the problem of a TLS that does not come to stand."""
    reason = getattr(error, "verify_message", "") or (error.reason or "").replace("_", " ").lower() or str(error)
    remedy = next(
        (remedy for words, remedy in _TODO if words in reason.lower()), "check that it speaks TLS on this port"
    )
    found = f"TLS with the datastore at {place} fails: {reason}"
    return problem("datastore-tls", found, "a certificate of the CA that the inventory names", remedy)


def ending(place: str, made: Context | None) -> list[Finding]:
    """Return a warning where the certificate that was shown ends soon."""
    if made is None or not made.ends or (left := made.ends - time.time()) > NEAR:
        return []
    found = f"the certificate of the datastore at {place} ends in {left / 86400:.0f} days"
    remedy = "renew it: no K3s can connect from then on"
    return [problem("datastore-tls", found, f"{NEAR / 86400:.0f} days at least", remedy, "warning")]
