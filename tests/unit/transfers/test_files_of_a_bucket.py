"""Requirements on loading files of a bucket without what reads them."""

from __future__ import annotations

import sys

import pytest

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.transfers.sql import read_sources


def test_a_manifest_in_a_bucket_without_s3fs_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)

    with pytest.raises(SettingsError, match=r"s3://lake needs.*pip install 'airflow-speechkit\[s3\]'"):
        read_sources("s3://lake/_manifests/batch.json")
