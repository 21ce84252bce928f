"""A retry policy for Airflow 3.3 and later: retries only what a retry can help."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow_speechkit import errors


def speechkit_retry_policy(*, quota_delay: timedelta = timedelta(minutes=15)) -> Any:
    """Make the policy for an operator's or a DAG's ``retry_policy=``.

    A hopeless recording fails at once instead of being tried again; a used-up quota waits longer than a
    task's usual ``retry_delay``; everything else follows the task's ``retries``.

    :param quota_delay: how long to wait after the folder's quota is used up
    :return: an ``ExceptionRetryPolicy``
    :raises ImportError: Airflow is older than 3.3, which has no retry policies
    """
    from airflow.providers.common.compat.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

    known = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in known if issubclass(kind, errors.SpeechKitError)]
    # Most derived first: the first rule that matches decides.
    kinds.sort(key=lambda kind: -len(kind.__mro__))
    rules = []
    for kind in kinds:
        if kind is errors.QuotaExceededError:
            rules.append(
                RetryRule(
                    exception=_path(kind),
                    action=RetryAction.RETRY,
                    retry_delay=quota_delay,
                    reason="the quota is used up",
                )
            )
        elif not kind.retry_can_help:
            rules.append(
                RetryRule(
                    exception=_path(kind),
                    action=RetryAction.FAIL,
                    reason="the same would happen again",
                    match_subclasses=False,
                )
            )
    return ExceptionRetryPolicy(rules=rules)


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
