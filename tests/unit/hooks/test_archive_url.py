"""Which archive a task uses, and what can't be one: in another archive everything is new, and is paid for again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.hooks.archive import archive_url
from airflow_speechkit.hooks.speechkit import SpeechKitHook


def url_of(monkeypatch: pytest.MonkeyPatch, given: Any, **extra: Any) -> str | None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_SPEECHKIT_DEFAULT", json.dumps({"conn_type": "speechkit", "password": "key", "extra": extra})
    )
    return archive_url(given, SpeechKitHook())


def test_the_operators_archive_comes_first_then_the_connections_then_the_configurations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__SPEECHKIT__ARCHIVE", "s3://third/archive")
    assert url_of(monkeypatch, "/first", archive="/second") == "/first"
    assert url_of(monkeypatch, None, archive="/second") == "/second"
    assert url_of(monkeypatch, None) == "s3://aws_default@third/archive"
    assert url_of(monkeypatch, None, aws_conn_id="own") == "s3://own@third/archive"
    assert url_of(monkeypatch, "s3://other@b/archive") == "s3://other@b/archive"
    assert url_of(monkeypatch, "file:///archive") == "file:///archive"
    assert url_of(monkeypatch, False, archive="/second") is None


@pytest.mark.parametrize("given", ["None", " None ", "", "  "])
def test_a_template_that_found_nothing_is_not_taken_for_the_connections_archive(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    with pytest.raises(SettingsError, match=r"`archive` is the text.*a template found nothing.*remove `archive`"):
        url_of(monkeypatch, given, archive="/second")


@pytest.mark.parametrize("path", ["archive", "./archive", "~/archive", "file://archive", "FILE://archive/x", "s3:/b/x"])
def test_a_relative_path_is_refused_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    for given, extra in ((path, {}), (None, {"archive": path})):
        with pytest.raises(SettingsError, match=r"is relative.*Write an absolute path"):
            url_of(monkeypatch, given, **extra)


@pytest.mark.parametrize("url", ["s3://AKIA:SECRET@calls/archive", "s3://AKIA:SEC/RET+SECRET@calls/archive"])
def test_credentials_in_the_archives_address_are_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    for given, extra in ((url, {}), (None, {"archive": url})):
        with pytest.raises(SettingsError, match=r"The archive's address .*Airflow connection") as refused:
            url_of(monkeypatch, given, **extra)
        assert "AKIA" not in str(refused.value)
        assert "SECRET" not in str(refused.value)
