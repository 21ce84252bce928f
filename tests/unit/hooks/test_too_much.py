"""Which errors, how often and for how long, end a wait."""

from __future__ import annotations

import pytest

from airflow_speechkit.errors import (
    ArchiveError,
    PermissionDeniedError,
    QuotaExceededError,
    ServiceFaultError,
    SpeechKitError,
)
from airflow_speechkit.hooks.archive import is_too_much


@pytest.mark.parametrize(
    ("error", "failures", "for_s", "expected"),
    [
        (ServiceFaultError("in trouble"), 100, 3599, False),
        (ServiceFaultError("in trouble"), 7, 9000, False),
        (ArchiveError("away"), 8, 3600, True),
        (PermissionDeniedError("no"), 100, 599, False),
        (PermissionDeniedError("no"), 5, 600, True),
        (QuotaExceededError("used up"), 1000, 90_000, False),
    ],
)
def test_what_is_put_up_with_is_what_the_poller_puts_up_with(
    error: SpeechKitError, failures: int, for_s: float, expected: bool
) -> None:
    assert is_too_much(error, failures, for_s) == expected
