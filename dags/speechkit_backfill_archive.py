"""Make the tables anew from the archive, for nothing: the service is not asked.

The archive's operations are split into shards by the first letters of their ids; each mapped task makes one
shard's tables, so the work spreads over the workers. Which shards there are is looked up when it runs: operations of
v2 and v3 and recordings that were refused are called differently, and all of them count.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_speechkit.hooks.archive import archive_url, open_archive
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

if TYPE_CHECKING:
    from collections.abc import Iterable

#: After three letters that all ids of an API share, the fourth spreads them over some thirty shards.
LETTERS = 4


def shards(operation_ids: Iterable[str], most: int) -> list[str]:
    """Give prefixes that have each operation in exactly one shard.

    An operation's prefix depends on its id alone, however many others there are: a later run replaces the files of
    an earlier one. Only where that would make more than `most` shards are the prefixes shorter.
    """
    ids = list(operation_ids)
    for letters in range(LETTERS, 0, -1):
        found = {one[:letters] for one in ids}
        # An id of fewer letters can be what another shard's ids begin with.
        prefixes = sorted(one for one in found if not any(one[:length] in found for length in range(1, len(one))))
        if len(prefixes) <= most:
            return prefixes
    return [""]


with DAG(
    dag_id="speechkit_backfill_archive",
    description=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={
        "most_shards": Param(256, type="integer", minimum=1, description="of [core] max_map_length at most"),
        "target": Param("s3://recordings/tables-backfill/", type="string"),
    },
    tags=["speechkit"],
) as dag:

    @dag.task
    def prefixes(params: dict) -> list[str]:
        """Look up the shards in the archive of the connection."""
        with SpeechKitHook() as hook:
            archive = open_archive(archive_url(None, hook))
        return shards(archive.operations(), params["most_shards"])

    rows = SpeechKitTransformOperator.partial(task_id="rows", target="{{ params.target }}").expand(
        operation_prefix=prefixes()
    )
    # A shard whose operations all still run is skipped, and must not take the others along.
    load = SpeechKitToSqlOperator(
        task_id="load", conn_id="warehouse", tables=rows.output, trigger_rule="none_failed_min_one_success"
    )
