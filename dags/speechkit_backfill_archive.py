"""Rebuild the tables from the archive, at no cost. The service is not called.

The run lists the archive's operations and divides them by the first letters of their ids into mapped tasks of about a
minute's work. Each operation has separate files, so another run replaces them, however it divides the operations.
"""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_speechkit.hooks.archive import archive_url, open_archive
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The first three letters are the same for all ids of an API; two more divide them into about a thousand groups.
LETTERS = 5


def shards(operation_ids: Iterable[str], per_task: int, most: int) -> list[list[str]]:
    """Divide operations by the prefixes of their ids.

    :param operation_ids: ids of all operations
    :param per_task: approximate number of operations of a task
    :param most: largest number of tasks
    :return: for each task, the prefixes of its operations
    """
    counts = Counter(operation_id[:LETTERS] for operation_id in operation_ids)
    size = max(per_task, math.ceil(counts.total() / most))
    found: dict[int, list[str]] = {}
    before = 0
    for prefix, count in sorted(counts.items()):
        found.setdefault(before // size, []).append(prefix)
        before += count
    return list(found.values())


with DAG(
    dag_id="speechkit_backfill_archive",
    description=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={
        "per_task": Param(
            3000, type="integer", minimum=1, description="operations per task: 3,000 take about a minute"
        ),
        "most_tasks": Param(256, type="integer", minimum=1, description="at most [core] max_map_length"),
        "target": Param("s3://recordings/tables-backfill/", type="string"),
    },
    tags=["speechkit"],
) as dag:

    @dag.task
    def prefixes(params: dict) -> list[list[str]]:
        """List the operations in the connection's archive and divide them."""
        with SpeechKitHook() as hook:
            archive = open_archive(archive_url(None, hook))
        return shards(archive.operations(), params["per_task"], params["most_tasks"])

    rows = SpeechKitTransformOperator.partial(task_id="rows", target="{{ params.target }}").expand(
        operation_prefix=prefixes()
    )
    # A task is skipped if all of its operations are still running. This must not skip the load.
    load = SpeechKitToSqlOperator(
        task_id="load", conn_id="warehouse", tables=rows.output, trigger_rule="none_failed_min_one_success"
    )
