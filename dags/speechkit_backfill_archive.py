"""Make the tables anew from the archive, for nothing: the service is not asked.

The archive's operations are divided by the first letters of their ids, so that each mapped task has about a minute's
work. Which there are is looked up when it runs. Each operation has files of its own, so a later run replaces them,
however it divides.
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

#: Three letters are the same in all ids of an API; two more divide the operations into a thousand groups.
LETTERS = 5


def shards(operation_ids: Iterable[str], per_task: int, most: int) -> list[list[str]]:
    """Divide operations by what their ids begin with.

    :param operation_ids: all operations
    :param per_task: how many operations a task should have, about
    :param most: how many tasks there may be
    :return: of each task the prefixes of its operations
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
        "per_task": Param(3000, type="integer", minimum=1, description="operations: about a minute's work"),
        "most_tasks": Param(256, type="integer", minimum=1, description="of [core] max_map_length at most"),
        "target": Param("s3://recordings/tables-backfill/", type="string"),
    },
    tags=["speechkit"],
) as dag:

    @dag.task
    def prefixes(params: dict) -> list[list[str]]:
        """Look up the shards in the archive of the connection."""
        with SpeechKitHook() as hook:
            archive = open_archive(archive_url(None, hook))
        return shards(archive.operations(), params["per_task"], params["most_tasks"])

    rows = SpeechKitTransformOperator.partial(task_id="rows", target="{{ params.target }}").expand(
        operation_prefix=prefixes()
    )
    # A shard whose operations all still run is skipped, and must not take the others along.
    load = SpeechKitToSqlOperator(
        task_id="load", conn_id="warehouse", tables=rows.output, trigger_rule="none_failed_min_one_success"
    )
