"""Files of a store: a folder and S3 keep the same promises, and say in a sentence what is wrong with them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.results.files import Files, StoreFault
from server.results.folder import FolderFiles
from server.results.retention import ORPHAN_SECONDS, Retention
from server.results.s3 import S3Files
from server.results.store import ResultsRefused
from server.settings import Settings
from tests.server.results.s3_server import BUCKET, S3Server, s3_server

NAMES_THAT_LEAD_OUT = ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "", ".", "a\\..\\b", "a/b\0", "a/b\n"]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    if request.param == "folder":
        return FolderFiles(tmp_path / "results")
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return S3Files(f"s3://{BUCKET}/{tmp_path.name}/deep")


def test_what_was_written_is_read_listed_and_deleted(files: Files) -> None:
    files.check()
    assert files.read("one/gen-1/1-image-0.png") is None
    assert list(files.list()) == []
    files.write("one/gen-1/1-image-0.png", b"first")
    files.write("one/gen-1/1-image-0.png", b"second")
    files.write("one/gen-1/record.json", b"{}")
    files.write("other/gen-2/record.json", b"{}")
    assert files.read("one/gen-1/1-image-0.png") == b"second"
    found = {file.name: file.size for file in files.list()}
    assert found == {"one/gen-1/1-image-0.png": 6, "one/gen-1/record.json": 2, "other/gen-2/record.json": 2}
    assert [file.job for file in files.list("other")] == ["other/gen-2"]
    files.note_use("one/gen-1")
    files.delete("one/gen-1")
    files.delete("one/gen-1")
    assert [file.name for file in files.list()] == ["other/gen-2/record.json"]


@pytest.mark.parametrize("name", NAMES_THAT_LEAD_OUT)
def test_no_name_leads_out_of_the_store(files: Files, name: str) -> None:
    for use in (lambda: files.read(name), lambda: files.write(name, b""), lambda: files.delete(name)):
        with pytest.raises(ValueError, match="no name"):
            use()


def test_too_old_and_too_many_go_the_least_recently_used_first(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    for index in range(4):
        files.write(f"one/gen-{index}/1-image-0.png", bytes(100))
        files.write(f"one/gen-{index}/record.json", b"{}")
    for index, used_at in enumerate((3000, 1000, 4000, 2000)):
        os.utime(tmp_path / f"one/gen-{index}", (used_at, used_at))
    files.write("one/gen-9/1-image-0.png", bytes(100))  # its job has not ended yet
    os.utime(tmp_path / "one/gen-9", (500, 500))

    def left() -> set[str]:
        return {file.job for file in files.list()}

    swept = Retention(files, 450, 0, clock=lambda: 5000).sweep()
    assert (swept.num_deleted, swept.freed, swept.num_bytes) == (1, 102, 406)
    assert left() == {"one/gen-0", "one/gen-2", "one/gen-3", "one/gen-9"}
    assert Retention(files, 450, 0, clock=lambda: 5000).sweep().num_deleted == 0
    Retention(files, 0, 1500, clock=lambda: 5000).sweep()
    assert left() == {"one/gen-2", "one/gen-9"}
    Retention(files, 0, 0, clock=lambda: 500 + ORPHAN_SECONDS + 1).sweep()
    assert left() == {"one/gen-2"}, "nobody ended that job"
    files.note_use("one/gen-2")
    assert (tmp_path / "one/gen-2").stat().st_mtime > 4000, "what is used counts as new"


def test_a_folder_that_cannot_be_written_to_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    with pytest.raises(ResultsRefused, match=r"cannot be written to the folder .*/results"):
        FolderFiles(tmp_path / "results").check()


def test_a_file_is_there_in_full_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FolderFiles(tmp_path)
    files.write("one/gen-1/record.json", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreFault, match="No space left"):
        files.write("one/gen-1/record.json", b"new")
    assert files.read("one/gen-1/record.json") == b"old"
    assert [file.name for file in files.list()] == ["one/gen-1/record.json"], "no part of it is left"


def test_wrong_buckets_credentials_and_addresses_are_told_apart(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ResultsRefused, match="s3://missing/: NoSuchBucket"):
        S3Files("s3://missing").check()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ResultsRefused, match="no credentials"):
        S3Files(f"s3://{BUCKET}").check()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(StoreFault, match="EndpointConnectionError"):
        S3Files(f"s3://{BUCKET}").check()


@pytest.mark.parametrize("text", ["disk", "s3://", "s3:///x", "s3://b/../c", "s3://B_/x", "folder:/x", "http://x/y"])
def test_a_store_that_does_not_exist_is_a_bad_setting(text: str) -> None:
    with pytest.raises(ValueError, match="is not redis, folder"):
        Settings(results=text)
    assert Settings(results="s3://bucket/a/b/").results == "s3://bucket/a/b"
