"""Make once what all test processes use: the images of the lab's hosts, and what the stand-in for K3s is packed of."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nornir_k3s_lab.container import used_images
from nornir_k3s_lab.files import default_umask
from nornir_k3s_lab.image import ensure_images
from nornir_k3s_lab.lab import CACHE, RUNTIME
from nornir_k3s_lab.model import RELEASES
from nornir_k3s_lab.system import require_programs, require_root
from tests import bundle


def say(line: str) -> None:
    print(f"{line}\n", end="", flush=True)  # whole lines: images are built at the same time


def main() -> None:
    require_root()
    require_programs(say)
    with default_umask():
        ensure_images(CACHE, RELEASES, say, used_images(RUNTIME))
    with tempfile.TemporaryDirectory() as folder:
        bundle.prepare(Path(folder), download=False)


if __name__ == "__main__":
    main()
