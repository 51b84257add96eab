"""Where images lie: a folder, an object store, and what neither lets happen."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from app.storage.blobs import BlobError, Blobs, Folder, open_blobs
from app.storage.errors import StoreError
from tests.app.storage.examples import digest

NAME = digest("image")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a server that speaks S3's protocol over HTTP."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, found as in production: by the environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{secrets.token_hex(4)}"
    assert httpx.put(f"{s3}/{name}").status_code == 200
    S3FileSystem.clear_instance_cache()  # they keep the environment that they were made in
    return name


@pytest.fixture(params=["folder", "path", "file://", "memory://", "s3://"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "s3://":
        return open_blobs(f"s3://{request.getfixturevalue('bucket')}/images", tmp_path)
    if request.param == "folder":
        return open_blobs(None, tmp_path)
    if request.param == "path":
        return open_blobs(str(tmp_path / "else" / "where"), tmp_path)
    return open_blobs(f"{request.param}{tmp_path}/images/", tmp_path)


def test_what_is_put_comes_back_until_it_is_removed(blobs: Blobs) -> None:
    assert blobs.get(NAME) is None
    blobs.put(NAME, b"bytes")
    blobs.put(NAME, b"bytes")
    assert blobs.get(NAME) == b"bytes"
    blobs.remove(NAME)
    blobs.remove(NAME)
    assert blobs.get(NAME) is None


def test_gateways_share_a_bucket_and_a_new_one_sees_what_is_there(bucket: str, tmp_path: Path) -> None:
    url = f"s3://{bucket}/images/"
    one, other = open_blobs(url, tmp_path / "one"), open_blobs(url, tmp_path / "other")
    assert other.get(NAME) is None  # nothing of it is remembered
    one.put(NAME, b"bytes")
    assert other.get(NAME) == b"bytes"
    other.remove(NAME)
    assert one.get(NAME) is None


def test_a_bucket_that_may_not_be_used_is_said(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # nobody is there
    S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = open_blobs(f"s3://{bucket}/elsewhere", tmp_path)
    for call in (lambda: away.get(NAME), lambda: away.put(NAME, b""), lambda: away.remove(NAME)):
        with pytest.raises(BlobError, match="the quarantine's store cannot be") as told:
            call()
        assert bucket not in str(told.value)


def test_old_files_that_nobody_knows_are_removed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    names = [digest(n) for n in range(3)]
    for name in names:
        folder.put(name, b"bytes")
    (tmp_path / names[0][:2] / ".half-written").write_bytes(b"x")
    for path in [path for path in tmp_path.rglob("*") if path.is_file() and path.name != names[2]]:
        os.utime(path, (1000, 1000))
    assert folder.tidy(lambda some: {names[1]} & set(some), before=2000) == 2
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(names[1:])
    assert Folder(tmp_path / "nowhere").tidy(set, before=2000) == 0


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, NAME + "\n", NAME[:-1] + "/"])
def test_only_digests_are_names(blobs: Blobs, name: str) -> None:
    for call in (lambda: blobs.get(name), lambda: blobs.put(name, b""), lambda: blobs.remove(name)):
        with pytest.raises(BlobError, match="its SHA-256"):
            call()


def test_files_are_the_owner_s_and_whole_or_not_there(tmp_path: Path) -> None:
    Folder(tmp_path / "q").put(NAME, b"bytes")
    files = [path for path in (tmp_path / "q").rglob("*") if path.is_file()]
    assert files == [tmp_path / "q" / NAME[:2] / NAME]
    assert files[0].stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_used_is_said_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = Folder(tmp_path / "file" / "secret-place")
    for call in (lambda: folder.put(NAME, b""), lambda: folder.get(NAME), lambda: folder.remove(NAME)):
        with pytest.raises(BlobError, match="Not a directory") as told:
            call()
        assert "secret-place" not in str(told.value)


def test_urls_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="quarantine_url"):
        open_blobs("nonsense://x", tmp_path)
    with pytest.raises(StoreError, match="not installed"):
        open_blobs("gs://bucket/x", tmp_path)
