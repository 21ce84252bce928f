from __future__ import annotations

from typing import Any

import pytest
import s3fs

from tests.fixtures.s3 import CREDENTIALS


@pytest.fixture
def lake_bucket(s3_client: Any, s3_endpoint: str) -> s3fs.S3FileSystem:
    """The filesystem of a storage that has the bucket `lake`."""
    s3_client.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": CREDENTIALS["region_name"]})
    return s3fs.S3FileSystem(
        key=CREDENTIALS["aws_access_key_id"],
        secret=CREDENTIALS["aws_secret_access_key"],
        endpoint_url=s3_endpoint,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
