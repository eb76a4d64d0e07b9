"""kubectl's words and options: what takes a value, what does not, and what it does not know."""

from __future__ import annotations

from collections.abc import Iterator

from k3s_standin.kubeclient import KubectlError

_VALUED = frozenset(
    [
        "--output",
        "--namespace",
        "--filename",
        "--kubeconfig",
        "--server",
        "--certificate-authority",
        "--client-certificate",
        "--client-key",
        "--request-timeout",
        "--token",
        "--timeout",
        "--grace-period",
        "--raw",
        "--context",
        "--cluster",
        "--user",
        "--selector",
        "--field-selector",
        "--for",
        "--type",
        "--patch",
        "--subresource",
        "--sort-by",
        "--v",
        "--as",
        "--as-group",
        "--chunk-size",
        "--label-columns",
        "--pod-selector",
        "--skip-wait-for-delete-timeout",
        "--tls-server-name",
        "--cache-dir",
        "--field-manager",
    ]
)
# A value may follow only after `=`.
_FLAGS = frozenset(
    [
        "--no-headers",
        "--ignore-not-found",
        "--insecure-skip-tls-verify",
        "--all-namespaces",
        "--all",
        "--force",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--disable-eviction",
        "--overwrite",
        "--dry-run",
        "--show-labels",
        "--wait",
        "--cascade",
        "--now",
        "--recursive",
        "--client",
        "--validate",
        "--server-side",
        "--show-managed-fields",
        "--watch",
        "--list",
        "--resource-version",
        "--help",
        "--show-kind",
        "--output-watch-events",
        "--force-conflicts",
    ]
)
_SHORT = {
    "-o": "--output",
    "-n": "--namespace",
    "-f": "--filename",
    "-s": "--server",
    "-l": "--selector",
    "-L": "--label-columns",
    "-p": "--patch",
    "-v": "--v",
    "-A": "--all-namespaces",
    "-w": "--watch",
    "-R": "--recursive",
    "-h": "--help",
}


def split(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return words and options."""
    words: list[str] = []
    options: dict[str, str] = {}
    rest = iter(argv)
    for word in rest:
        if word == "-" or not word.startswith("-"):
            words.append(word)
            continue
        name, value = _option(word)
        if value is None:
            value = _next(rest, word) if name in _VALUED else "true"
        options[name] = value
    return words, options


def _option(word: str) -> tuple[str, str | None]:
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        if name not in _VALUED | _FLAGS:
            raise KubectlError(f"error: unknown flag: {name}\nSee 'kubectl --help' for usage.")
        return name, value if equals else None
    short = word[:2]
    if short not in _SHORT:
        raise KubectlError(f"error: unknown shorthand flag: '{word[1]}' in {word}\nSee 'kubectl --help' for usage.")
    return _SHORT[short], word[2:].removeprefix("=") or None


def _next(rest: Iterator[str], word: str) -> str:
    value = next(rest, None)
    if value is None:
        raise KubectlError(f"error: flag needs an argument: {word}\nSee 'kubectl --help' for usage.")
    return str(value)
