from __future__ import annotations

import importlib
import json
from importlib.resources import files

import jsonschema

from airflow_speechkit.hooks.connection import SpeechKitConnection
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.provider import CONN_FIELDS, get_provider_info


def test_the_info_has_the_form_that_airflow_asks_for() -> None:
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(json.loads(json.dumps(get_provider_info())), schema)


def test_the_look_of_the_form_has_the_form_that_airflow_asks_for() -> None:
    schema = json.loads(files("airflow").joinpath("customized_form_field_behaviours.schema.json").read_text())
    jsonschema.validate(SpeechKitHook.get_ui_field_behaviour(), schema)


def test_the_hook_is_the_one_that_the_info_names() -> None:
    (connection_type,) = get_provider_info()["connection-types"]
    module, _, name = connection_type["hook-class-name"].rpartition(".")
    assert getattr(importlib.import_module(module), name) is SpeechKitHook
    assert connection_type["connection-type"] == SpeechKitHook.conn_type
    assert connection_type["hook-name"] == SpeechKitHook.hook_name


def test_what_is_secret_is_hidden_in_the_form() -> None:
    assert CONN_FIELDS["iam_token"][2]["format"] == "password"
    # A key goes into the password: Airflow shows an `authorized_key` in the extra to whoever may read connections.
    assert not {"api_key", "authorized_key", "service_account_json"} & set(CONN_FIELDS)


def test_what_everybody_needs_comes_first_and_is_marked() -> None:
    assert next(iter(CONN_FIELDS)) == "archive"
    behaviour = SpeechKitHook.get_ui_field_behaviour()
    for label in (behaviour["relabeling"]["password"], CONN_FIELDS["archive"][0]):
        assert label.endswith("(required)")
    assert set(behaviour["hidden_fields"]) == {"login", "schema", "port"}


def test_a_form_left_empty_but_for_the_key_is_a_connection() -> None:
    filled = {name: schema.get("default", "") for name, (_, _, schema) in CONN_FIELDS.items()}
    filled |= {"use_metadata": False, "submits_per_hour": None, "checks_per_hour": None, "checks_per_second": None}
    found = SpeechKitConnection.read(
        "c",
        conn_type="speechkit",
        host="",
        port=None,
        schema="",
        password="k",
        extra=filled,
    )
    assert found == SpeechKitConnection.read(
        "c",
        conn_type="speechkit",
        host=None,
        port=None,
        schema=None,
        password="k",
        extra={"data_logging_enabled": ""},
    )


def test_the_archive_has_no_default_in_the_configuration() -> None:
    assert get_provider_info()["config"]["speechkit"]["options"]["archive"]["default"] is None
