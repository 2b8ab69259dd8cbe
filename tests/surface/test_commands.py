"""Every block of README.md and docs/*.md is run, or says why not; every command, option and setting named exists.

Blocks are run in the order of the page, in a folder of the page's own, against a server that has the shipped model.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest
from PIL import Image, ImageDraw

from oar_cli import VERBS, main
from oar_core.train.recipe_file import load_recipe
from server.settings import Settings, environment_name
from tests.server.live import LiveServer
from tests.surface.blocks import RUNNABLE, Block, read_blocks
from tests.waiting import HANG_SECONDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TRAINING = ROOT / "docs" / "training.md"
SECONDS = 5 * HANG_SECONDS
# Options and variables of other programs, of the tests and of the client.
FOREIGN_OPTIONS = {
    *("--scale", "--maxmemory", "--build", "--from-literal", "--local-dir", "--no-python", "--nproc-per-node"),
    *("--hash-max-listpack-value", "--stream-node-max-bytes"),
}
FOREIGN_PROGRAMS = r"\b(docker|kubectl|redis-\w+|curl|pip|git|python -m)\b"
FOREIGN_VARIABLES = {"OAR_CHAOS_SCALE", "OAR_TEST_DATA", "OAR_URL", "OAR_API_KEY"}
TINY = """
base = "pictures-64"
name = "flowers"
licence = "CC0-1.0"
text_vocab = 300
example_prompts = ["a red circle"]
tokenizer = {image_size = [16, 16], widths = [8, 8], head_width = 8, vocab_size = 16, code_width = 4}
backbone = {max_condition = 8, width = 16, num_heads = 2, num_context_layers = 1, num_query_layers = 1}
tokenizer_loop = {num_images = 64, batch_size = 8}
any_order_loop = {num_images = 64, batch_size = 8}
distill = {num_images = 16, batch_size = 8}
order_finetune_loop = {num_images = 64, batch_size = 8}
order_policy = {width = 8, num_layers = 1}
"""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    return [block for block in read_blocks(page) if block.language in RUNNABLE]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("pages"), ROOT / "weights") as server:
        yield server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """`oar` and `python3` are this checkout's, and curl says by its status that an answer was an error."""
    folder = tmp_path / "bin"
    folder.mkdir()
    curl = shutil.which("curl")
    assert curl is not None, "the pages speak to the server with curl"
    scripts = {
        "oar": f'exec {sys.executable} -m oar_cli "$@"',
        "python3": f'exec {sys.executable} "$@"',
        "curl": f'exec {curl} --fail-with-body "$@"',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OAR_", "REDIS_URL"))}
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**inherited, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(block: Block, folder: Path, environment: dict[str, str], url: str = "") -> str:
    """What the block printed. The server of the pages, localhost:8000, is the one at `url`."""
    address = httpx.URL(url)
    text = block.text.replace("localhost:8000", f"{address.host}:{address.port}") if url else block.text
    words = [sys.executable, "-c", text] if block.language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(
        words, cwd=folder, env={**environment, "OAR_URL": url}, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, f"{block.where}\n{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def place_files(folder: Path) -> None:
    """What a page takes for granted: a mask that opens the lower half."""
    mask = Image.new("RGBA", (64, 64), "black")
    mask.paste((0, 0, 0, 0), (0, 32, 64, 64))
    mask.save(folder / "mask.png")


@pytest.mark.parametrize("page", [page for page in PAGES if page != TRAINING], ids=name_of)
def test_the_blocks_of_a_page_run_one_after_another(
    page: Path, live: LiveServer, tmp_path: Path, environment: dict[str, str]
) -> None:
    place_files(tmp_path)
    for block in blocks(page):
        if block.not_run is None:
            run(block, tmp_path, environment, live.url)


def draw_shapes(folder: Path) -> None:
    """Sixty circles and squares of four colours, in the folders of two splits, with a table in each."""
    for split, numbers in (("train", range(48)), ("test", range(48, 60))):
        (folder / split / "shapes").mkdir(parents=True)
        lines = ["file_name,text"]
        for number in numbers:
            colour = ("red", "green", "blue", "orange")[number % 4]
            is_round = number % 8 < 4
            image = Image.new("RGB", (20, 20), "white")
            box = (number % 5, number % 7, number % 5 + 11, number % 7 + 11)
            draw = ImageDraw.Draw(image)
            (draw.ellipse if is_round else draw.rectangle)(box, fill=colour)
            image.save(folder / split / "shapes" / f"{number}.png")
            lines.append(f"shapes/{number}.png,a {colour} {'circle' if is_round else 'square'}")
        (folder / split / "metadata.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_the_stages_of_training_make_a_model_that_is_served(tmp_path: Path, environment: dict[str, str]) -> None:
    """docs/training.md, word for word, with a recipe that takes seconds; then a server paints with what it left."""
    (tmp_path / "mine.toml").write_text(TINY)
    draw_shapes(tmp_path / "pictures")
    for block in blocks(TRAINING):
        if block.not_run is None:
            run(block, tmp_path, environment)
    for name in ("reconstructions.png", "painting.png", "samples.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) >= 16, name
    assert (tmp_path / "runs/finer/order_finetune-random/checkpoint.safetensors").exists()
    (tmp_path / "live").mkdir()
    with LiveServer(tmp_path / "live", tmp_path / "weights") as server:
        assert server.client.get("/v1/models").json()["data"][0]["id"] == "flowers"
        job = server.post(wait=60, prompt="a blue square", order="distilled").json()
        assert job["status"] == "completed", job
        assert server.png(job["id"]).startswith(b"\x89PNG")


# without running


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_reason_for_not_running_is_a_sentence(page: Path) -> None:
    for block in blocks(page):
        assert block.not_run is None or len(block.not_run.split()) >= 3, block.where


def test_recipes_of_the_pages_can_be_read(tmp_path: Path) -> None:
    texts = [block.text for block in read_blocks(TRAINING) if block.language == "toml"]
    assert texts
    for text in [*texts, TINY]:
        (tmp_path / "mine.toml").write_text(text)
        load_recipe(str(tmp_path / "mine.toml"))


def named_in(page: Path) -> Iterator[str]:
    """Inline code, and the lines of bash blocks, those that are not run too."""
    text = page.read_text()
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.S | re.M)
    yield from (code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose))
    for block in read_blocks(page):
        if block.language in {"bash", "console"}:
            yield from block.text.replace("\\\n", " ").splitlines()


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts} | {"--help"}


def children(command: click.Command | None) -> dict[str, click.Command]:
    """The verbs of `oar` itself are found when they are asked for."""
    if command is main:
        context = click.Context(main)
        return {verb: found for verb in VERBS if (found := main.get_command(context, verb)) is not None}
    return dict(command.commands) if isinstance(command, click.Group) else {}


def everything(command: click.Command) -> Iterator[click.Command]:
    yield command
    for child in children(command).values():
        yield from everything(child)


ALL_OPTIONS = {name for command in everything(main) for name in options_of(command)} | {"--version"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_that_are_named_exist(page: Path) -> None:
    for text in named_in(page):
        for sentence in re.findall(r"(?:^|[;|&(]|\w=\S+)\s*(oar (?:[^;&|)]|(?<=\w)\|(?=\w))+)", text):
            check_command(sentence, page)
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text):
            is_ours = not re.search(FOREIGN_PROGRAMS, text)
            assert not is_ours or option in ALL_OPTIONS | FOREIGN_OPTIONS, f"{page.name}: {option} in {text!r}"


def check_command(sentence: str, page: Path) -> None:
    words = shlex.split(sentence.replace("[", "").replace("]", ""), comments=True)[1:]
    reached: list[click.Command] = [main]
    for word in words:
        if word.startswith("-"):
            option = word.split("=")[0]
            assert any(option in options_of(command) for command in reached), f"{page.name}: {option} of {sentence!r}"
        elif any(children(command) for command in reached) and not word.isupper():
            found = [children(command).get(name) for command in reached for name in word.split("|")]
            assert all(found), f"{page.name}: {word} of {sentence!r}"
            reached = [command for command in found if command is not None]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_targets_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    known = {environment_name(name) for name in Settings.model_fields} | FOREIGN_VARIABLES
    assert set(re.findall(r"\bOAR_[A-Z_]*[A-Z]\b", text)) <= known
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([\w-]+)`", text)) <= targets
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_and_of_those_below_it(verb: str) -> None:
    for command in everything(children(main)[verb]):
        with click.Context(command, info_name=verb) as context:
            assert command.get_help(context).startswith("Usage:")
