"""What is tried again, by what the error itself says."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow import __version__ as airflow_version

from airflow_speechkit import errors
from airflow_speechkit.retry_policy import speechkit_retry_policy

HAS_POLICIES = tuple(map(int, airflow_version.split(".")[:2])) >= (3, 3)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (errors.RecognitionFailedError("no"), "fail"),
        (errors.RecordingError("no"), "fail"),
        (errors.RecordingError("replaced meanwhile", retry_can_help=True), "default"),
        (errors.ArchiveError("away"), "default"),
        (errors.ArchiveError("damaged", retry_can_help=False), "fail"),
        (errors.SubmissionsFailedError.of([errors.RecordingError("a")] * 2, 2), "fail"),
        (errors.SubmissionsFailedError.of([errors.RecordingError("a"), errors.UnreachableError("b")], 2), "default"),
        (errors.QuotaExceededError("429"), "retry"),
        (errors.ServiceFaultError("503"), "default"),
        (ZeroDivisionError(), "default"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_error_is_tried_again_as_it_says_itself(error: Exception, action: str) -> None:
    if not HAS_POLICIES:
        with pytest.raises(ImportError):
            speechkit_retry_policy()
        return
    assert speechkit_retry_policy().evaluate(error, 1, 3).action.value == action


def test_a_used_up_quota_waits_as_long_as_the_service_asks_for() -> None:
    if not HAS_POLICIES:
        return
    policy = speechkit_retry_policy(quota_delay=timedelta(minutes=5))
    assert policy.evaluate(errors.QuotaExceededError("429"), 1, 3).retry_delay == timedelta(minutes=5)
    asked = errors.QuotaExceededError("429", retry_after_s=900.0)
    assert policy.evaluate(asked, 1, 3).retry_delay == timedelta(minutes=15)
