"""Files of the Hugging Face Hub: from its cache, downloaded, and gone on with where a download was cut off."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.importing.command import TOKENIZER, Importing, golden_file
from tests.importing.hub import COMMIT, Hub, serve

ROOT = Path(__file__).parents[2]
CHECKPOINT, CODES = "hf:hp-l33/ARPG/arpg_300m.safetensors", "hf:FoundationVision/LlamaGen/vq/vq_ds16_c2i.safetensors"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    for source, name in ((CHECKPOINT, "arpg"), (CODES, TOKENIZER)):
        target = tmp_path / "hub" / source.removeprefix("hf:")
        target.parent.mkdir(parents=True)
        shutil.copy(golden_file(name), target)
    with serve(tmp_path / "hub") as hub:
        yield hub


def oar(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its environment once."""
    return subprocess.run(
        [sys.executable, "-m", "oar_cli", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_a_checkpoint_of_the_hub_is_downloaded_once_and_named_by_its_commit(hub: Hub, tmp_path: Path) -> None:
    job, cache = Importing(tmp_path, "arpg"), tmp_path / "cache"
    done = oar(job.words(CHECKPOINT, CODES), hub.environment(cache))
    assert done.returncode == 0, done.stderr
    card = (job.weights / "arpg" / "card.md").read_text()
    assert f"`hp-l33/ARPG@{COMMIT}/arpg_300m.safetensors` of the Hugging Face Hub" in card
    assert f"`FoundationVision/LlamaGen@{COMMIT}/vq/vq_ds16_c2i.safetensors`" in card
    assert len(hub.ranges) == 2
    again = oar(job.words(CHECKPOINT, CODES, "--name", "again"), {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"})
    assert again.returncode == 0, again.stderr
    assert len(hub.ranges) == 2


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    """What huggingface_hub gathers before it writes is 10 MB, so the file has more."""
    size = 24 << 20
    content = os.urandom(size)
    (hub.folder / "hp-l33" / "ARPG" / "large.pt").write_bytes(content)
    hub.cut_after = 22 << 20
    environment, source = hub.environment(tmp_path / "cache"), "hf:hp-l33/ARPG/large.pt"
    done = oar(["models", "pull", source, "--json"], environment)
    if done.returncode:  # where the client does not try again by itself
        assert "goes on where it stopped" in done.stderr
        done = oar(["models", "pull", source, "--json"], environment)
    assert done.returncode == 0, done.stderr
    (file,) = json.loads(done.stdout)
    assert Path(file["path"]).read_bytes() == content
    assert (file["bytes"], file["source"]) == (size, f"hf:hp-l33/ARPG@{COMMIT}/large.pt")
    first, second = hub.ranges
    assert first is None
    assert second is not None
    assert 10_000_000 <= int(second.removeprefix("bytes=").split("-")[0]) <= 22 << 20


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf:hp-l33/ARPG/nothing.pt", "hp-l33/ARPG has no file nothing.pt"),
        ("hf:nobody/nothing/x.pt", "the Hub has no repository nobody/nothing, or it is private"),
    ],
)
def test_what_the_hub_does_not_have_is_one_sentence(hub: Hub, tmp_path: Path, source: str, words: str) -> None:
    done = oar(["models", "pull", source], hub.environment(tmp_path / "cache"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == f"Error: {words}"


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    done = oar(["models", "pull", CHECKPOINT], environment)
    assert done.returncode == 1
    assert "is not in the cache, and the Hub cannot be reached" in done.stderr.splitlines()[-1]
    done = oar(["models", "pull", CHECKPOINT], {**environment, "HF_HUB_OFFLINE": "1"})
    assert "is not in the cache, and" in done.stderr.splitlines()[-1]


def test_only_files_of_the_hub_can_be_pulled(tmp_path: Path) -> None:
    done = oar(["models", "pull", "arpg_300m.pt"], {"HF_HOME": str(tmp_path)})
    assert done.returncode == 2
    assert "it is written hf:OWNER/REPO/FILE" in done.stderr
