"""The examples of docs/client.md are run, as they stand, against a server with the model that is shipped."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from PIL import Image

from oar_cli import main
from tests.server.live import ROOT, LiveServer
from tests.surface.blocks import read_blocks
from tests.waiting import HANG_SECONDS

PAGE = (ROOT / "docs" / "client.md").read_text()
BLOCKS = [block for block in read_blocks(ROOT / "docs" / "client.md") if block.language == "python"]
EXAMPLES = [block.text for block in BLOCKS if block.not_run is None]
LINES = re.findall(r"```bash\n(.*?)```", PAGE, re.S)[0].splitlines()
RESULTS = ["orc.png", "second.webp", "edited.png", "halton.png", "", ""]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("docs"), ROOT / "weights") as server:
        yield server


def test_there_is_a_result_for_each_example() -> None:
    assert len(EXAMPLES) == len(RESULTS)


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_an_example_runs(shipped: LiveServer, tmp_path: Path, index: int) -> None:
    environment = {**os.environ, "OAR_URL": shipped.url, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLES[index]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    if RESULTS[index]:
        with Image.open(tmp_path / RESULTS[index]) as picture:
            assert picture.size == (64, 64)
    else:
        assert re.search("invalid_order order|sprites-64", done.stdout)


@pytest.mark.slow
def test_the_examples_have_sound_types(tmp_path: Path) -> None:
    """As a strict checker of a user's program sees the client."""
    for index, text in enumerate(block.text for block in BLOCKS):
        (tmp_path / f"example_{index}.py").write_text(text)
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_readmes_example_runs(shipped: LiveServer, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (script,) = [text for text in blocks if "oar_client" in text]
    script = script.replace("http://localhost:8000", shipped.url)
    command = [sys.executable, "-W", "error", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("written first and last:")
    with Image.open(tmp_path / "orc.png") as picture:
        assert picture.size == (64, 64)


def test_commands_and_their_options_exist() -> None:
    for line in LINES:
        words = shlex.split(line.removeprefix('eval "$(').removesuffix(')"').partition(" | ")[0])[1:]
        command = main.get_command(click.Context(main), words[0])
        assert command is not None, line
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line
