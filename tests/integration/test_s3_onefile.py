"""What an S3 server refuses of one object is no refusal of the login, nor of the bucket."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.drivers.s3 import S3Driver
from catalog.errors import ErrorCode, StorageError
from tests.integration.test_s3 import driver as driver
from tests.integration.test_s3 import settings as settings
from tests.integration.test_s3 import url as url
from tests.integration.test_s3 import write as write
from workers.onefile import blamed, reading

pytestmark = pytest.mark.xdist_group("s3")


def deny(driver: S3Driver, action: str, *paths: str) -> None:
    bucket = driver._place.bucket
    refusal = {
        "Effect": "Deny", "Principal": {"AWS": ["*"]}, "Action": [f"s3:{action}"],
        "Resource": [f"arn:aws:s3:::{bucket}/{driver._place.prefix}{path}" for path in paths],
    }  # fmt: skip
    policy = {"Version": "2012-10-17", "Statement": [refusal]}
    driver._client.set_bucket_policy(bucket, json.dumps(policy))


def code_of_reading(driver: S3Driver, path: str, target: Path) -> ErrorCode:
    with pytest.raises(StorageError) as caught, reading(driver, path, f"run/{path}"):
        driver.get(path, target)
    assert path in str(caught.value)
    return caught.value.code


def test_an_object_that_alone_is_refused_is_that_files_trouble(
    driver: S3Driver, tmp_path: Path, write: Callable[[str, bytes], Path]
) -> None:
    for name in ("a/x", "a/y", "b/z"):
        driver.put(write("made", b"content"), name)
    deny(driver, "GetObject", "a/x")
    assert code_of_reading(driver, "a/x", tmp_path / "x") is ErrorCode.INPUT_UNREADABLE
    assert code_of_reading(driver, "a/none", tmp_path / "x") is ErrorCode.INPUT_MISSING
    deny(driver, "GetObject", "a/x", "a/y")
    assert code_of_reading(driver, "a/x", tmp_path / "x") is ErrorCode.INPUT_UNREADABLE
    deny(driver, "GetObject", "*")
    assert code_of_reading(driver, "a/x", tmp_path / "x") is ErrorCode.STORAGE_DENIED


def test_a_place_that_alone_takes_nothing_is_that_outputs_trouble(
    driver: S3Driver, tmp_path: Path, write: Callable[[str, bytes], Path]
) -> None:
    deny(driver, "PutObject", "a/*")
    for path, code in (("a/x", ErrorCode.OUTPUT_UNWRITABLE), ("b/x", None)):
        try:
            driver.put(write("made", b"content"), path)
            found = None
        except StorageError as error:
            found = blamed(driver, tmp_path, {path: error})[path].code
        assert found is code
    assert [info.path for info in driver.list()] == ["b/x"], "the look leaves nothing"
    deny(driver, "PutObject", "*")
    with pytest.raises(StorageError) as caught:
        driver.put(write("made", b"content"), "c/x")
    assert blamed(driver, tmp_path, {"c/x": caught.value}) == {"c/x": caught.value}
