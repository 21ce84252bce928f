"""Load files from a bucket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from airflow_speechkit.errors import StorageError
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator
from tests.fixtures.manifests import paths_of, the_call, write_manifest
from tests.fixtures.s3 import CREDENTIALS


@pytest.fixture
def manifest(tmp_path: Path, s3_client: Any, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A manifest whose files lie in a bucket behind the connection `lake`."""
    lake = {
        "conn_type": "aws",
        "login": CREDENTIALS["aws_access_key_id"],
        "password": CREDENTIALS["aws_secret_access_key"],
        "extra": {"region_name": CREDENTIALS["region_name"], "endpoint_url": s3_endpoint},
    }
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(lake))
    warehouse = {"conn_type": "duckdb", "host": str(tmp_path / "speech.duckdb")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(warehouse))
    written = write_manifest(tmp_path, the_call())
    s3_client.create_bucket(Bucket="tables", CreateBucketConfiguration={"LocationConstraint": "ru-central1"})
    files = [path for table in written["rows"] for path in paths_of(written, table)]
    for path in (*files, Path(written["manifest"])):
        s3_client.upload_file(str(path), "tables", f"speech/{path.relative_to(tmp_path)}")
    return {**written, "manifest": "s3://lake@tables/speech/_manifests/batch.json"}


def load(manifest: dict[str, Any]) -> dict[str, int]:
    return SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=manifest).execute({})  # type: ignore[arg-type]


def test_files_in_a_bucket_are_loaded(manifest, tmp_path) -> None:
    assert load(manifest) == {"recognitions": 7, "utterances": 6, "words": 16, "analyses": 0}
    with duckdb.connect(str(tmp_path / "speech.duckdb")) as connection:
        assert connection.execute("SELECT count(*) FROM words").fetchall() == [(16,)]


def test_a_file_missing_from_the_bucket_is_named(manifest, s3_client) -> None:
    s3_client.delete_object(Bucket="tables", Key="speech/words-batch.parquet")
    with pytest.raises(StorageError, match=r"s3://lake@tables/speech/words-batch.parquet does not exist"):
        load(manifest)


def test_an_unreachable_bucket_is_an_error(manifest, monkeypatch) -> None:
    nowhere = {"conn_type": "aws", "login": "a", "password": "b", "extra": {"endpoint_url": "http://127.0.0.1:1"}}
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", json.dumps(nowhere))
    with pytest.raises(StorageError, match=r"Can't read s3://nowhere@tables/speech/_manifests/batch.json"):
        load({**manifest, "manifest": manifest["manifest"].replace("lake@", "nowhere@")})
