"""Files that are replaced whole: several writers at a time, and writers that fail."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from oar_core.new_file import new_file
from tests.waiting import HANG_SECONDS


def test_writers_at_the_same_time_each_write_a_whole_file(tmp_path: Path) -> None:
    path, writers = tmp_path / "made" / "cache.npy", 4
    barrier = Barrier(writers)

    def write(letter: str) -> None:
        with new_file(path) as part, part.open("w") as file:
            for _ in range(10):
                barrier.wait(timeout=HANG_SECONDS)
                file.write(letter * 1000)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, "abcd"))
    text = path.read_text()
    assert len(text) == 10_000
    assert len(set(text)) == 1
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError, match="nowhere"), new_file(path) as part:
        part.write_text((tmp_path / "nowhere").read_text())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
