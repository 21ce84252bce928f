"""Make the tables anew from the archive, for nothing: the service is not asked.

The archive's operations are split into shards by the first letters of their ids; each mapped task makes one
shard's tables, so the work spreads over the workers.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

with DAG(
    dag_id="speechkit_backfill_archive",
    description=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={
        "prefixes": Param([f"e03{letter}" for letter in "0123456789abcdefghijklmnopqrstuvwxyz"], type="array"),
        "target": Param("s3://lake/speech-backfill/", type="string"),
    },
    tags=["speechkit"],
) as dag:

    @dag.task
    def prefixes(params: dict) -> list[str]:
        """Name the shards."""
        return params["prefixes"]

    rows = SpeechKitTransformOperator.partial(
        task_id="rows", target="{{ params.target }}", partition_by_date=True
    ).expand(operation_prefix=prefixes())
    # A shard without operations is skipped, and must not take the others along.
    load = SpeechKitToSqlOperator(
        task_id="load", conn_id="warehouse", tables=rows.output, trigger_rule="none_failed_min_one_success"
    )
