"""A process that claims a range of recordings as fast as it can, and prints the claims that it holds.

``python -m tests.integration.archive.racer NAME ROOT ENDPOINT COUNT`` waits for a line on its standard input first.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta

from airflow_speechkit.archive.ledger import fingerprint
from airflow_speechkit.archive.records import Claim
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.models import Submission
from tests.unit.archive.world import T0, archive_at, recording


def claim(archive: Archive, owner: str, name: str) -> bool:
    asked = recording(name)
    planned = Submission(
        operation_id="",
        fingerprint=fingerprint(asked),
        audio_uri=asked.audio_uri,
        settings=asked.settings,
        submitted_at=T0,
    )
    lease = T0 + timedelta(days=1)
    return archive.claim(
        1,
        Claim(id=f"{owner}-{name}", owner=owner, scope=owner, claimed_at=T0, lease_expires_at=lease, planned=planned),
    )


def main() -> None:
    owner, root, endpoint, count = sys.argv[1:]
    archive = archive_at(root, endpoint)
    archive.probe(T0)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps([name for name in map(str, range(int(count))) if claim(archive, owner, name)]))


if __name__ == "__main__":
    main()
