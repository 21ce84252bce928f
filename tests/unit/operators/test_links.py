"""What of a link to a recording stands in a DAG."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_speechkit.operators.submit import SpeechKitSubmitOperator


def test_a_link_that_is_written_into_the_dag_has_no_query_there() -> None:
    link = "https://storage.yandexcloud.net/calls/1.ogg"

    def audio(given: Any) -> Any:
        return SpeechKitSubmitOperator(task_id="submit", audio=given).audio

    assert audio(f"{link}?X-Amz-Signature=5ecret") == link
    assert audio([f"{link}#5ecret", "s3://calls/what?.ogg"]) == [link, "s3://calls/what?.ogg"]
    assert audio("https://{{ 'host?' }}/{{ params.key }}?5ecret") == "https://{{ 'host?' }}/{{ params.key }}"
    with DAG("calls", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        upstream = BaseOperator(task_id="upstream").output
        assert audio(upstream) is upstream


def test_a_rendered_link_has_no_query() -> None:
    link = "https://storage.yandexcloud.net/calls/1.ogg"
    operator = SpeechKitSubmitOperator(task_id="submit", audio=["{{ link }}", "s3://calls/{{ day }}/what?.ogg"])
    operator.render_template_fields({"link": f"{link}?X-Amz-Signature=5ecret", "day": "2026"})  # type: ignore[typeddict-unknown-key]
    assert operator.audio == [link, "s3://calls/2026/what?.ogg"]
