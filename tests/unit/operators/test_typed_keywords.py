"""Numbers and switches among the keywords, as literals and as what templates become."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.keywords import switch
from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

NEEDED: dict[Any, dict[str, Any]] = {
    SpeechKitSubmitOperator: {"audio": "s3://calls/1.ogg"},
    SpeechKitRecognizeOperator: {"audio": "s3://calls/1.ogg"},
    SpeechKitRecognitionSensor: {"operation_id": "e03"},
    SpeechKitTransformOperator: {"operation_id": "e03", "target": "/lake"},
    SpeechKitToSqlOperator: {"tables": {}},
}
TYPED = [(operator, name, check) for operator in NEEDED for name, check in operator.typed_fields.items()]
NUMBERS = [(operator, name) for operator, name, check in TYPED if check is not switch]
SWITCHES = [(operator, name) for operator, name, check in TYPED if check is switch]


def made(operator: Any, **kwargs: Any) -> Any:
    return operator(task_id="task", **NEEDED[operator], **kwargs)


def rendered(operator: Any, name: str, value: Any, *, native: bool = False) -> Any:
    """Render one keyword of an operator, the others as they are."""
    task = made(
        operator, dag=DAG("calls", schedule=None, render_template_as_native_obj=native), **{name: "{{ value }}"}
    )
    assert getattr(task, name) == "{{ value }}"
    task.render_template_fields({"value": value})
    return getattr(task, name)


@pytest.mark.parametrize(("operator", "name"), NUMBERS)
def test_a_template_of_a_number_becomes_that_number(operator: Any, name: str) -> None:
    for value in (8000, "8000", " 8000 ", 8000.0):
        assert rendered(operator, name, value) == 8000
    assert rendered(operator, name, 8000, native=True) == 8000
    assert isinstance(rendered(operator, name, 8000), type(getattr(made(operator, **{name: 8000}), name)))


@pytest.mark.parametrize(("operator", "name"), NUMBERS)
@pytest.mark.parametrize(
    "value", ["ten", "None", "", "nan", "inf", "-inf", "0", "-1", "True", "9" * 5000, "0x10", "1 2"]
)
def test_an_invalid_number_is_refused_with_the_keyword_and_the_value(operator: Any, name: str, value: str) -> None:
    for give in (rendered, lambda *given: made(given[0], **{given[1]: given[2]})):
        with pytest.raises(SettingsError, match=f"`{name}` must be .*, not '{re.escape(value[:90])}"):
            give(operator, name, value)


@pytest.mark.parametrize(("operator", "name"), NUMBERS)
def test_a_template_that_found_nothing_is_named_as_the_cause(operator: Any, name: str) -> None:
    for native in (False, True):
        with pytest.raises(SettingsError, match="A template found nothing"):
            rendered(operator, name, None, native=native)


@pytest.mark.parametrize(("operator", "name"), SWITCHES)
def test_a_template_of_a_switch_is_true_or_false(operator: Any, name: str) -> None:
    for value, expected in ((True, True), (False, False), ("true", True), ("false", False)):
        assert rendered(operator, name, value) is expected
    for wrong in ("no", "0", "None", ""):
        with pytest.raises(SettingsError, match=f"`{name}` must be True or False, not '{wrong}'"):
            rendered(operator, name, wrong)
    with pytest.raises(SettingsError, match=f"`{name}` must be True or False, not 1"):
        made(operator, **{name: 1})


def test_times_may_be_timedeltas() -> None:
    sensor = made(SpeechKitRecognitionSensor, timeout=timedelta(hours=2), poke_interval=timedelta(seconds=0.5))
    assert (sensor.timeout, sensor.poke_interval) == (7200.0, 0.5)
    assert made(SpeechKitToSqlOperator, lock_timeout_s=timedelta(minutes=1)).lock_timeout_s == 60.0


@pytest.mark.parametrize("operator", NEEDED)
def test_the_docstring_names_what_is_templated(operator: Any) -> None:
    ours = (kind for kind in operator.__mro__ if kind.__module__.startswith("airflow_speechkit"))
    docs = "\n".join(inspect.cleandoc(kind.__doc__ or "") for kind in ours)
    params = dict(re.findall(r"^:param (\w+):(.*?)(?=^:|\Z)", docs, re.DOTALL | re.MULTILINE))
    assert {name for name in params if "(templated)" in params[name]} == set(operator.template_fields)


def test_a_derived_operator_can_template_more_settings() -> None:
    class Derived(SpeechKitSubmitOperator):
        template_fields = (*SpeechKitSubmitOperator.template_fields, "audio_encoding")

    operator = Derived(task_id="submit", audio="s3://calls/1.ogg", audio_encoding="{{ params.encoding }}")
    operator.render_template_fields({"params": {"encoding": "MP3"}})
    assert (operator.audio_encoding, operator.literature_text) == ("MP3", False)  # type: ignore[attr-defined]
