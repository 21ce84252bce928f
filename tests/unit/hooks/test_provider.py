from __future__ import annotations

import importlib
import json
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import jsonschema

from airflow_speechkit.hooks.connection import read_connection
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.provider import FIELDS, get_provider_info


def form_fields() -> dict[str, Any]:
    (connection_type,) = get_provider_info()["connection-types"]
    return connection_type["conn-fields"]


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
    form = form_fields()
    assert form["iam_token"]["schema"]["format"] == "password"
    # A key goes into the password: Airflow shows an `authorized_key` in the extra to whoever may read connections.
    assert not {"api_key", "authorized_key", "service_account_json"} & set(form)
    assert all(one["label"] and one["description"] for one in form.values())


def test_what_everybody_needs_comes_first_and_is_marked() -> None:
    assert next(iter(form_fields())) == "archive"
    behaviour = SpeechKitHook.get_ui_field_behaviour()
    for label in (behaviour["relabeling"]["password"], FIELDS["archive"].label):
        assert label.endswith("(required)")
    assert set(behaviour["hidden_fields"]) == {"login", "schema", "port"}


def test_a_form_left_empty_but_for_the_key_is_a_connection() -> None:
    filled = {name: one["schema"].get("default", "") for name, one in form_fields().items()}
    filled |= {"use_metadata": False, "submits_per_hour": None, "checks_per_hour": None, "checks_per_second": None}
    sound = {"conn_id": "c", "conn_type": "speechkit", "password": "k"}
    as_saved = SimpleNamespace(**sound, host="", port=None, schema="", extra_dejson=filled)
    bare = SimpleNamespace(**sound, host=None, port=None, schema=None, extra_dejson={"data_logging_enabled": ""})
    assert read_connection(as_saved) == read_connection(bare)


def test_the_archive_has_no_default_in_the_configuration() -> None:
    assert get_provider_info()["config"]["speechkit"]["options"]["archive"]["default"] is None
