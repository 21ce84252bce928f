"""A retry policy for Airflow 3.3 and later: retries only what a retry can help."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow_speechkit.errors import QuotaExceededError, SpeechKitError


def speechkit_retry_policy(*, quota_delay: timedelta = timedelta(minutes=15)) -> Any:
    """Make the policy for an operator's or a DAG's ``retry_policy=``.

    A recording that would fail again fails at once; a used-up quota waits longer than a
    task's usual ``retry_delay``; everything else follows the task's ``retries``.

    :param quota_delay: how long to wait at least after the folder's quota is used up
    :return: a ``RetryPolicy``
    :raises ImportError: Airflow is older than 3.3, which has no retry policies
    """
    from airflow.sdk import RetryDecision, RetryPolicy

    class SpeechKitRetryPolicy(RetryPolicy):
        def evaluate(
            self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
        ) -> RetryDecision:
            if isinstance(exception, QuotaExceededError):
                asked_for = timedelta(seconds=exception.retry_after_s or 0)
                return RetryDecision.retry(max(quota_delay, asked_for), "the quota is used up")
            # The error itself, not its kind: a missing file of the archive can come back, a damaged one can't.
            if isinstance(exception, SpeechKitError) and not exception.retry_can_help:
                return RetryDecision.fail("the same would happen again")
            return RetryDecision.default()

    return SpeechKitRetryPolicy()
