"""What it means when PostgreSQL, or something before it, refuses a login.

Sources: PostgreSQL's manual, appendix "PostgreSQL Error Codes", and `src/backend/libpq/auth.c`, `be-secure-openssl.c`.
"""

from __future__ import annotations

from nornir_k3s.datastore_probe import parameters
from nornir_k3s.datastore_probe.answers import problem
from nornir_k3s.model.endpoint import Endpoint
from nornir_k3s.model.finding import Finding

# Unknown, with a value that it does not have, fixed until a restart, for administrators alone.
_PARAMETER = ("42704", "22023", "55P02", "42501")


def code_of(error: Exception) -> str:
    """Return the SQLSTATE of pg8000's error, or nothing."""
    return str(error.args[0].get("C", "")) if error.args and isinstance(error.args[0], dict) else ""


def _parameter_refused(words: str, version: str) -> Finding:
    remedy = "correct or remove it: K3s' driver sends what it does not know to the database"
    if "channel_binding" in words:
        remedy = f"remove it: the driver of K3s {version} does not know it, those of {parameters.NEWER} do"
    found = f"the database refuses a parameter of the endpoint: {words}"
    return problem("datastore-settings", found, "parameters that it has", remedy)


def _way_refused(words: str, endpoint: Endpoint) -> Finding:
    if "client certificate" in words:
        found = f"the database requires a client certificate of user {endpoint.user}"
        return problem("datastore-tls", found, "a login", "set `certfile` and `keyfile`")
    if "not permitted to log in" in words:
        return problem("datastore-login", f"user {endpoint.user} may not log in", "a login", "ALTER ROLE … LOGIN")
    found = f"the database does not allow user {endpoint.user} to connect from this server's address this way"
    remedy = "add the servers to pg_hba.conf: their addresses, or names that the database resolves to them and back"
    return problem("datastore-login", found, "a login", remedy)


def _without_digest(endpoint: Endpoint, version: str) -> Finding:
    found = "the database's certificate is signed in a way (Ed25519) that allows no channel binding"
    if parameters.binds(version) and endpoint.parameters.get("channel_binding") != "disable":
        remedy = "use another certificate; or the endpoint's parameter `channel_binding: disable`"
        return problem("datastore-tls", f"{found}, which K3s tries", "one that is signed with RSA or ECDSA", remedy)
    remedy = "accept this, as K3s can log in; or use a certificate that is signed with RSA or ECDSA"
    expected = "a check of the datastore before the first change"
    return problem("datastore-asked", f"{found}: it cannot be checked", expected, remedy, "warning")


def _pooler() -> Finding:
    found = "the endpoint is a connection pooler (PgBouncer), which refuses K3s' parameters"
    remedy = "use the address of PostgreSQL itself: K3s uses prepared statements"
    return problem("datastore-settings", found, "PostgreSQL itself", remedy)


def refused(error: Exception, endpoint: Endpoint, version: str) -> Finding:  # noqa: PLR0911 - one line a cause
    """Return the finding for a refused login.

    Arguments:
        error: pg8000's.
        endpoint: What was tried.
        version: Of K3s.
    """
    details = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    code, words, user, database = code_of(error), str(details.get("M", "")), endpoint.user, endpoint.database
    match code:
        case "28P01":
            found = f"the database refuses user {user} or the password"
            return problem("datastore-login", found, "a login", "check user and password")
        case "28000":
            return _way_refused(words, endpoint)
        case "3D000":
            found = f"database {database} does not exist, and user {user} may not create it"
            return problem("datastore-rights", found, "the database", "create it, owned by the user")
        case "42501" if "database" in words:
            found = f"user {user} may not connect to database {database}"
            return problem("datastore-rights", found, "CONNECT", f"GRANT CONNECT ON DATABASE {database} to it")
        case _ if "unsupported startup parameter" in words or code == "08P01":
            return _pooler()
        case _ if code in _PARAMETER:
            return _parameter_refused(words, version)
        case "XX000" if "digest" in words or "signature algorithm" in words:
            return _without_digest(endpoint, version)
    reason = words or str(error).splitlines()[0][:100]
    if "SSL" in reason:
        return problem("datastore-tls", "the database has no TLS", "TLS", "enable it in postgresql.conf")
    return problem("datastore", f"the login failed ({code or reason})", "a login", "see the database's log")
