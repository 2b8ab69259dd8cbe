"""What the examples of README.md and docs/api.md do, looked at closely; `test_commands.py` runs all of them."""

import base64
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.server.live import LiveServer
from tests.surface.blocks import read_blocks
from tests.waiting import HANG_SECONDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("readme"), ROOT / "weights") as server:
        yield server


def blocks(language: str, page: str = "docs/api.md") -> list[str]:
    return [block.text for block in read_blocks(ROOT / page) if block.language == language]


def test_the_first_request_paints_the_picture(live: LiveServer) -> None:
    """The curl command: 202, every position once under a growing seq, a PNG of the model's size."""
    (command,) = [text for text in blocks("bash", "README.md") if text.startswith("curl") and "/v1/generations" in text]
    words = shlex.split(command)
    body = json.loads(words[words.index("-d") + 1])
    answer = live.client.post("/v1/generations", json=body)
    assert answer.status_code == 202
    events = live.events(answer.json()["id"])
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs)), "a number that is missing was a preview that a newer one replaced"
    patches = [patch for event in events if event["type"] == "patches" for patch in event["patches"]]
    assert sorted(patch["position"] for patch in patches) == list(range(64))
    assert [patch["rank"] for patch in patches] == list(range(64))
    assert events[-1]["type"] == "completed"
    png = live.client.get(events[-1]["images"][0]["url"]).content
    assert Image.open(io.BytesIO(png)).size == (64, 64)


def test_the_example_of_a_stream_prints_each_step(live: LiveServer, tmp_path: Path) -> None:
    (script,) = [text for text in blocks("python") if "websockets" in text]
    address = httpx.URL(live.url)
    script = script.replace("localhost:8000", f"{address.host}:{address.port}")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert done.returncode == 0, done.stderr
    *steps, end = done.stdout.splitlines()
    assert len(steps) > 1
    assert end == "completed"


def test_openais_client_paints_and_curl_edits(live: LiveServer, tmp_path: Path) -> None:
    """The streamed picture, then the edit of it: a mask that opens the lower half leaves the upper one."""
    (script,) = [text for text in blocks("python") if "openai" in text]
    (command,) = [text for text in blocks("bash") if text.startswith("curl") and "/v1/images/edits" in text]
    address = httpx.URL(live.url)
    script = script.replace("localhost:8000", f"{address.host}:{address.port}")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert done.returncode == 0, done.stderr
    types = [line.split()[0] for line in done.stdout.splitlines()]
    assert types == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 32, 64, 64))
    mask.save(tmp_path / "mask.png")
    words = shlex.split(command)
    fields = dict(word.split("=", 1) for flag, word in pairwise(words) if flag == "-F")
    files = {name: (tmp_path / value[1:]).read_bytes() for name, value in fields.items() if value.startswith("@")}
    texts = {name: value for name, value in fields.items() if not value.startswith("@")}
    for kind in (texts.pop("output_format"), "png"):
        answer = live.client.post("/v1/images/edits", data={**texts, "output_format": kind}, files=files)
        edited = Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"])))
        assert edited.format == kind.upper()
    with Image.open(tmp_path / "orc.png") as picture:
        upper = (0, 0, 64, 32)
        assert edited.convert("RGB").crop(upper).tobytes() == picture.convert("RGB").crop(upper).tobytes()
