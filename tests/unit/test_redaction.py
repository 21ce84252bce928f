"""No address that is shown or kept holds a credential, and no key is changed for it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.redaction import clean_address, clean_text

SIGNED = "X-Amz-Algorithm=AWS4&X-Amz-Signature=5ecret"


@pytest.mark.parametrize(
    ("address", "clean"),
    [
        ("https://u:5ecret@storage.yandexcloud.net/b/1.ogg", "https://***@storage.yandexcloud.net/b/1.ogg"),
        ("https://u:5ec/ret5ecret@host/b/1.ogg", "https://***@host/b/1.ogg"),
        ("https://u:5ec?ret5ecret@host/b/1.ogg", "https://***@host/b/1.ogg"),
        ("https://u:5ec#ret5ecret@host/b/1.ogg", "https://***@host/b/1.ogg"),
        ("https://u:5ec@ret5ecret@host/b/1.ogg", "https://***@host/b/1.ogg"),
        ("https://5ecret@host/b/1.ogg", "https://***@host/b/1.ogg"),
        ("https://host:5ecret/b/1.ogg", "https://host:***/b/1.ogg"),
        (" HTTPS://u:5ecret@host/b/1.ogg", " HTTPS://***@host/b/1.ogg"),
        ("s3://KEY:5ecret@b/1.ogg", "s3://***@b/1.ogg"),
        ("s3a://KEY:5ec/ret5ecret@b/1.ogg", "s3a://***@b/1.ogg"),
        ("s3://KEY%3A5ecret@b/1.ogg", "s3://***@b/1.ogg"),
        ("s3://KEY:5ecret", "s3://***"),
        ("sftp://u:5ecret@host/1.ogg", "sftp://***@host/1.ogg"),
        ("https://host/b/1.ogg?" + SIGNED, "https://host/b/1.ogg"),
        ("https://host/b/1.ogg#5ecret", "https://host/b/1.ogg"),
        ("https://host?5ecret", "https://host"),
        ("gs://b/1.ogg?x-goog-signature=5ecret", "gs://b/1.ogg"),
        ("s3://b/folder?" + SIGNED, "s3://b/folder"),
        ("s3://conn@b/1.ogg?AWSAccessKeyId=5ecret", "s3://conn@b/1.ogg"),
        ("s3://b/what?/1.ogg?versionId=3&" + SIGNED, "s3://b/what?/1.ogg"),
        ("file:///archive?" + SIGNED, "file:///archive"),
        ("/archive?" + SIGNED, "/archive"),
        ("storage.yandexcloud.net/b/1.ogg?" + SIGNED, "storage.yandexcloud.net/b/1.ogg"),
        ("//storage.yandexcloud.net/b/1.ogg?" + SIGNED, "//storage.yandexcloud.net/b/1.ogg"),
        ("u:5ecret@storage.yandexcloud.net/b/1.ogg", "***@storage.yandexcloud.net/b/1.ogg"),
        ("https://host/b/1.ogg%3Fa%3D1%26X-Amz-Signature%3D5ecret", "https://host/b/1.ogg"),
        ("b/1.ogg%3FX-Amz-Signature%3D5ecret", "b/1.ogg"),
        ("https://u:5ecret@host/{{ ds }}/1.ogg?{{ var.value.query }}", "https://***@host/{{ ds }}/1.ogg"),
        ("s3://KEY:5ecret@b/{{ ds }}/", "s3://***@b/{{ ds }}/"),
        ("{{ var.value.base }}/1.ogg?" + SIGNED, "{{ var.value.base }}/1.ogg"),
        ("https://host/{{ '?5' }}/1.ogg?5ecret", "https://host/{{ '?5' }}/1.ogg"),
    ],
)
def test_credentials_are_cut(address: str, clean: str) -> None:
    assert clean_address(address) == clean
    assert clean_address(clean) == clean


@pytest.mark.parametrize(
    "address",
    [
        "s3://b/call [in] 1?.ogg",
        "s3://conn_id@b/12:30/ivan@mail.ru/1.ogg?x=1",
        "s3://b/1.ogg#2",
        "s3://{{ params.conn }}@{{ params.bucket }}/{{ ds }}/why?.ogg",
        "https://host:8443/b/a@b.ogg",
        "https://[::1]:8443/b/a@b.ogg",
        "https://{{ var.value.host }}:{{ var.value.port }}/b/a@b.ogg",
        "https://storage.yandexcloud.net/b/12:30@call.ogg",
        "gs://conn_id@b/1.ogg",
        "12:30@call.ogg",
        "12:30/ivan@mail.ru/1.ogg",
        "12:30-ivan@mail.ru/1.ogg",
        "calls/what?token/1.ogg ",
        "/calls/1.ogg?x=1#2",
        "file:///calls/1.ogg?x=1#2",
        "{{ ti.xcom_pull('a?b') }}",
        "",
    ],
)
def test_what_is_no_credential_stays(address: str) -> None:
    assert clean_address(address) == address


@settings(derandomize=True, deadline=None)
@given(secret=st.text("ab1/?#@:+=%", min_size=1, max_size=12), key=st.text("abя/ .", min_size=1, max_size=12))
def test_a_secret_of_any_characters_is_cut_and_the_key_stays(secret: str, key: str) -> None:
    assert clean_address(f"s3://KEY:{secret}@bucket/{key}") == f"s3://***@bucket/{key}"


def test_an_error_never_says_a_credential_wherever_the_address_stands_in_it() -> None:
    error = RecordingError(
        "Can't read s3://KEY:5ecret@b/1.ogg, nor 'https://u:5ecret@host/2.ogg?sig=5ecret'",
        recording="https://u:5ecret@host/3.ogg?5ecret",
    )
    error.about_recording("never said")
    assert "5ecret" not in repr(vars(error)) + str(error) + repr(error)
    assert "s3://***@b/1.ogg, nor 'https://***@host/2.ogg'" in str(error)
    assert (
        clean_text("Nothing to cut: https://host:80/a, s3://b/1.ogg")
        == "Nothing to cut: https://host:80/a, s3://b/1.ogg"
    )
