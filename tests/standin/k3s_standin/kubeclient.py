"""kubectl's connection: kubeconfig, TLS as kubectl verifies it, and errors in its words (client-go)."""

from __future__ import annotations

import base64
import errno
import http.client
import json
import os
import re
import socket
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from k3s_standin.places import KUBECONFIG

LOCAL = "http://localhost:8080"


class KubectlError(Exception):
    """Ends kubectl with status 1 and this text."""

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason


def read_config(options: dict[str, str]) -> dict[str, Any]:
    """Return cluster and user of the kubeconfig's current context, in one."""
    given = options.get("--kubeconfig")
    path = Path(given or os.environ.get("KUBECONFIG") or KUBECONFIG)
    try:
        data = yaml.load(path.read_text(), yaml.CSafeLoader)
    except FileNotFoundError:
        if given:
            raise KubectlError(f"error: stat {path}: no such file or directory") from None
        return {}
    except OSError as error:
        if not given and not os.environ.get("KUBECONFIG"):
            sys.stderr.write(
                f'level=warning msg="Unable to read {path}, please start server with --write-kubeconfig-mode or'
                ' --write-kubeconfig-group to modify kube config permissions"\n'
            )
        text = f"open {path}: {str(error.strerror).lower()}"
        raise KubectlError(f'error: error loading config file "{path}": {text}') from None
    except yaml.YAMLError as error:
        raise KubectlError(f'error: error loading config file "{path}": yaml: {error}') from None
    if not isinstance(data, dict):
        return {}
    return _current(data, options.get("--context") or data.get("current-context") or "")


def _current(data: dict[str, Any], name: str) -> dict[str, Any]:
    def named(plural: str, one: str, wanted: str) -> dict[str, Any]:
        found = next((entry[one] for entry in data.get(plural) or [] if entry["name"] == wanted), None)
        return dict(found or {})

    context = named("contexts", "context", name)
    if name and not context:
        raise KubectlError(f'error: context "{name}" does not exist')
    return {
        **named("clusters", "cluster", context.get("cluster", "")),
        **named("users", "user", context.get("user", "")),
    }


class Client:
    """The API as kubectl reaches it."""

    def __init__(self, options: dict[str, str]) -> None:
        self.options = options
        self.config = read_config(options)
        if options.get("--token"):
            self.config["token"] = options["--token"]
        self.server = options.get("--server") or self.config.get("server") or LOCAL
        if "//" not in self.server:
            self.server = f"http://{self.server}"
        parts = urlsplit(self.server)
        self.host, self.secure = parts.hostname or "localhost", parts.scheme == "https"
        self.port = parts.port or (443 if self.secure else 80)
        self.timeout = parse_seconds(options.get("--request-timeout", "0"))

    def _context(self) -> ssl.SSLContext:
        get = self.options.get
        ca = get("--certificate-authority") or self.config.get("certificate-authority")
        data = None if get("--certificate-authority") else self.config.get("certificate-authority-data")
        try:
            context = ssl.create_default_context(
                cafile=None if data else ca, cadata=base64.b64decode(data).decode() if data else None
            )
        except OSError as error:
            raise KubectlError(f"error: unable to read certificate-authority {ca} due to {error}") from None
        if get("--insecure-skip-tls-verify") == "true" or self.config.get("insecure-skip-tls-verify"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._identify(context)
        return context

    def _identify(self, context: ssl.SSLContext) -> None:
        certificate = self.options.get("--client-certificate") or self.config.get("client-certificate")
        if certificate:
            try:
                context.load_cert_chain(certificate, self.options.get("--client-key") or self.config.get("client-key"))
            except OSError as error:
                raise KubectlError(f"error: unable to read client-cert {certificate} due to {error}") from None
        elif self.config.get("client-certificate-data"):
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                for key in ("client-certificate-data", "client-key-data"):
                    file.write(base64.b64decode(self.config[key]).decode())
                file.flush()
                context.load_cert_chain(file.name)

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, bytes]:
        """Make one request."""
        patience = self.timeout or 30
        connection: http.client.HTTPConnection
        if self.secure:
            connection = http.client.HTTPSConnection(self.host, self.port, timeout=patience, context=self._context())
        else:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=patience)
        headers = {"Content-Type": kind, "Accept": "application/json"}
        if self.config.get("token"):
            headers["Authorization"] = f"Bearer {self.config['token']}"
        elif self.config.get("username"):
            pair = f"{self.config['username']}:{self.config.get('password', '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise KubectlError(self._words(error)) from None
        finally:
            connection.close()

    def _words(self, error: Exception) -> str:
        where = f"{self.host}:{self.port}"
        if isinstance(error, ConnectionRefusedError):
            return f"The connection to the server {where} was refused - did you specify the right host or port?"
        head = "Unable to connect to the server: "
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{head}tls: failed to verify certificate: x509: {self._untrusted(error)}"
        if isinstance(error, ssl.SSLEOFError | http.client.RemoteDisconnected):
            return f"{head}EOF"
        if isinstance(error, ssl.SSLError):
            return f"{head}remote error: tls: {(error.reason or 'handshake failure').lower().replace('_', ' ')}"
        if isinstance(error, socket.gaierror):
            return f"{head}dial tcp: lookup {self.host}: no such host"
        if isinstance(error, TimeoutError) and error.errno != errno.ETIMEDOUT:
            if self.timeout:
                return f"{head}net/http: request canceled (Client.Timeout exceeded while awaiting headers)"
            return f"{head}dial tcp {where}: i/o timeout"
        if isinstance(error, ConnectionResetError):
            return f"{head}read tcp {where}: read: connection reset by peer"
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        return f"{head}dial tcp {where}: connect: {reason}"

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> str:
        if error.verify_code in (62, 64):
            return f"certificate is valid for {self._served_names()}, not {self.host}"
        if error.verify_code in (9, 10):
            return "certificate has expired or is not yet valid"
        return "certificate signed by unknown authority"

    def _served_names(self) -> str:
        from cryptography import x509

        pem = ssl.get_server_certificate((self.host, self.port), timeout=5)
        found = x509.load_pem_x509_certificate(pem.encode()).extensions
        names = found.get_extension_for_class(x509.SubjectAlternativeName).value
        wanted = x509.IPAddress if re.fullmatch(r"[\d.]+|.*:.*", self.host) else x509.DNSName
        return ", ".join(str(one.value) for one in names if isinstance(one, wanted))

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> dict[str, Any]:
        """Make one request that must succeed."""
        code, data = self.call(method, path, body, kind)
        if code >= 400:
            raise failure(code, data)
        found: dict[str, Any] = json.loads(data)
        return found


def failure(code: int, data: bytes) -> KubectlError:
    """Return the error that an answer is."""
    text = data.decode(errors="replace")
    try:
        status = json.loads(text)
    except ValueError:
        status = {}
    if code == 401:
        return KubectlError("error: You must be logged in to the server (Unauthorized)", "Unauthorized")
    if status.get("kind") == "Status":
        reason = status.get("reason") or "Unknown"
        if reason == "Invalid":
            return KubectlError(f"The {status['message']}", reason)
        return KubectlError(f"Error from server ({reason}): {status['message']}", reason)
    if code == 404:
        return KubectlError(
            "Error from server (NotFound): the server could not find the requested resource", "NotFound"
        )
    if code == 503:
        text = "the server is currently unable to handle the request"
        return KubectlError(f"Error from server (ServiceUnavailable): {text}", "ServiceUnavailable")
    said = json.dumps(text.strip(), ensure_ascii=False)
    return KubectlError(
        f"Error from server (InternalError): an error on the server ({said}) has prevented the request from succeeding",
        "InternalError",
    )


def parse_seconds(text: str) -> float:
    """Return a duration in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", text)
    if not match:
        raise KubectlError(
            f"error: Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a corresponding time unit (e.g. 1s | 2m | 3h): {text}"
        )
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, None: 1}[match[2]]
