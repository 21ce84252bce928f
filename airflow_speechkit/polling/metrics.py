"""How the poller's metrics are named in Airflow's own `Stats`."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


def stat_suffix(key: Hashable) -> str:
    """Return what a poller's gauges end in. StatsD knows no tags: the connection and the API version are in the name.

    :param key: what the poller is shared by
    """
    return ".".join(_accepted(str(part)) for part in (key if isinstance(key, tuple) else (key,)))


def _accepted(part: str) -> str:
    """Return a part of a name that Airflow accepts: it drops one with other characters, or with more than 250."""
    accepted = re.sub(r"[^A-Za-z0-9_-]", "_", part)[:100]
    return accepted if accepted == part else f"{accepted[:91]}_{sha256(part.encode()).hexdigest()[:8]}"
