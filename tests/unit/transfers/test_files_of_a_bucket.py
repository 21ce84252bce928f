"""Requirements on loading files of a bucket without what reads them."""

from __future__ import annotations

import sys

import pyarrow as pa
import pytest

from airflow_speechkit.errors import SettingsError
from airflow_speechkit.transfers.files import batches


def test_a_file_in_a_bucket_without_s3fs_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)

    with pytest.raises(SettingsError, match=r"s3://lake/words\.parquet needs.*pip install 'airflow-speechkit\[s3\]'"):
        list(batches(["s3://lake/words.parquet"], "parquet", pa.schema([("word", pa.string())]), ["word"]))
