"""Errors name their recording without giving away the credential that a link's query is."""

from __future__ import annotations

import pytest

from airflow_speechkit.errors import RecordingError, SpeechKitError


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("s3://calls/what?now.ogg", "s3://calls/what?now.ogg"),
        ("s3://calls/2026-??/#1.ogg", "s3://calls/2026-??/#1.ogg"),
        ("file:///calls/what?now.ogg", "file:///calls/what?now.ogg"),
        ("/calls/what?now.ogg", "/calls/what?now.ogg"),
        ("https://storage.yandexcloud.net/calls/1.ogg?X-Amz-Signature=SECRET", "https://storage.yandexcloud.net/calls/1.ogg"),
        ("HTTP://host/calls/1.ogg#SECRET", "HTTP://host/calls/1.ogg"),
        (" https://host/calls/1.ogg?SECRET", " https://host/calls/1.ogg"),
        ("ftp://host/1.ogg?sig=SECRET", "ftp://host/1.ogg"),
    ],
)  # fmt: skip
def test_a_links_query_is_cut_and_a_keys_question_mark_is_not(given: str, shown: str) -> None:
    known = RecordingError("It isn't there", recording=given)
    later = RecordingError("It isn't there")
    later.about_recording(given)

    assert known.recording == later.recording == shown
    assert str(known) == str(later) == f"It isn't there. [recording {shown}]"


def test_what_else_can_be_done_is_said_after_what_was_said_before() -> None:
    with_hint, without = SpeechKitError("No", hint="Mend it"), SpeechKitError("No", retry="says the same")
    for error in (with_hint, without):
        error.add_hint("Then run it again.")

    assert str(with_hint) == "No. Mend it. Then run it again."
    assert str(without) == "No. Then run it again. A retry says the same."
