"""`k3s kubectl`: a real HTTPS client of the API, for the verbs that deploy tools use."""

from __future__ import annotations

import sys
from collections.abc import Callable

from k3s_standin.kubeargs import split
from k3s_standin.kubechange import Changer
from k3s_standin.kubeclient import KubectlError


def run(argv: list[str], version: str) -> int:
    """Run one kubectl command."""
    try:
        words, options = split(argv)
        return Kubectl(options, version).command(words)
    except KubectlError as error:
        sys.stderr.write(f"{error}\n")
        return 1


class Kubectl(Changer):
    """One command."""

    def command(self, words: list[str]) -> int:
        """Run the command the words name."""
        verbs: dict[str, Callable[[list[str]], int]] = {
            "get": self.get,
            "create": self.create,
            "replace": self.replace,
            "apply": self.apply,
            "delete": self.delete,
            "patch": self.patch,
            "label": self.label,
            "annotate": self.label,
            "taint": self.taint,
            "cordon": self.cordon,
            "uncordon": self.cordon,
            "drain": self.drain,
            "certificate": self.certificate,
            "wait": self.wait,
            "version": self.version,
            "cluster-info": self.cluster_info,
        }
        verb = words[0] if words else ""
        if verb not in verbs:
            raise KubectlError(f'error: unknown command "{verb}" for "kubectl"')
        return verbs[verb](words)
