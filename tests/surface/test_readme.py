"""The README's commands are run, against the server that they speak of and the weights that are shipped."""

import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest
from PIL import Image

from oar_core.cli import commands
from server.cli import VERBS
from tests.server.live import LiveServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("readme"), ROOT / "weights") as server:
        yield server


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


def test_the_first_request_paints_the_picture(live: LiveServer) -> None:
    """The curl command: 202, every position once under a growing seq, a PNG of the model's size."""
    (command,) = [text for text in blocks("bash") if text.startswith("curl")]
    words = shlex.split(command)
    body = json.loads(words[words.index("-d") + 1])
    answer = live.client.post("/v1/generations", json=body)
    assert answer.status_code == 202
    events = live.events(answer.json()["id"])
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    patches = [patch for event in events if event["type"] == "patches" for patch in event["patches"]]
    assert sorted(patch["position"] for patch in patches) == list(range(64))
    assert [patch["rank"] for patch in patches] == list(range(64))
    assert events[-1]["type"] == "completed"
    png = live.client.get(events[-1]["images"][0]["url"]).content
    assert Image.open(io.BytesIO(png)).size == (64, 64)


def test_the_python_client_paints_a_picture(live: LiveServer, tmp_path: Path) -> None:
    (script,) = blocks("python")
    address = httpx.URL(live.url)
    script = script.replace("localhost:8000", f"{address.host}:{address.port}")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 1
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (64, 64)


def test_make_targets_exist() -> None:
    named = set(re.findall(r"`?\bmake (\w[\w-]*)", README))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"serve", "test"} <= named
    assert named <= targets


def test_oar_commands_and_their_options_exist() -> None:
    lines = [line for text in blocks("bash") for line in text.splitlines() if line.startswith("oar ")]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        assert words[0] in VERBS, line
        if words[0] in commands:
            command = commands[words[0]]
            assert isinstance(command, click.Group)
            leaf = command.commands[words[1]]
            known = {name for parameter in leaf.params for name in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, line


def test_pictures_and_paths_of_the_readme_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
