"""Watches: what changes below a key, event by event, until the client goes (kube-apiserver's watch.go)."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

from k3s_standin.log import log
from k3s_standin.store import Feed, StoreError

EVERY = 0.1  # seconds; kine asks once a second, and at once after a write of its own
Item = dict[str, Any]


def serve(
    feed: Feed, wanted: Callable[[Item], bool], send: Callable[[bytes], None], gone: Callable[[], bool], seconds: float
) -> None:
    """Send events until the client goes or the time is up; a datastore that is away keeps a watch open."""
    until = time.monotonic() + seconds
    away = False
    while time.monotonic() < until and not gone():
        try:
            changes, away = feed.poll(), False
        except StoreError as error:
            if not away:
                log("error", f"error in watch: {error}")
            changes, away = [], True
        for kind, _, entry in changes:
            item = entry.json()
            if wanted(item):
                send(json.dumps({"type": kind, "object": item}, separators=(",", ":")).encode() + b"\n")
        time.sleep(EVERY)


def lifetime(asked: str) -> float:
    """Return how many seconds a watch lasts: as asked, else half an hour to an hour."""
    return float(asked) if asked.isdigit() and int(asked) else 1800 * (1 + random.random())
