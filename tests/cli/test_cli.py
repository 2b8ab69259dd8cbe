import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from oar_cli import VERBS, main
from tests.ports import nowhere
from tests.server.live import LiveServer
from tests.server.tiny import NAME


@pytest.fixture
def runner(weights_dir: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("OAR_WEIGHTS_DIR", str(weights_dir))
    return CliRunner()


def test_generate_makes_the_same_picture_here_and_on_a_server(
    runner: CliRunner, live: LiveServer, tmp_path: Path
) -> None:
    here, there = tmp_path / "here.png", tmp_path / "there.png"
    words = ["generate", "a red circle", "--seed", "7", "--order", "spiral", "--steps", "4"]
    assert runner.invoke(main, [*words, "-o", str(here)]).exit_code == 0
    assert runner.invoke(main, [*words, "-o", str(there), "--url", live.url]).exit_code == 0
    assert here.read_bytes() == there.read_bytes(), "with the recipe inside"
    assert Image.open(io.BytesIO(here.read_bytes())).size == (20, 16)


def test_several_images_get_an_index(runner: CliRunner, live: LiveServer, tmp_path: Path) -> None:
    words = ["generate", "a red circle", "-n", "3", "-o", str(tmp_path / "out.png"), "--url", live.url]
    assert runner.invoke(main, words).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-0.png", "out-1.png", "out-2.png"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["a circle", "--order", "zigzag"], "order 'zigzag' is not one of"), (["  "], "the prompt is empty"),
     (["a circle", "--steps", "0"], "steps: Input should be greater than or equal to 1"),
     (["a circle", "--model", "other"], "unknown model 'other'")],
)  # fmt: skip
def test_generate_says_what_is_wrong(runner: CliRunner, words: list[str], sentence: str) -> None:
    result = runner.invoke(main, ["generate", *words])
    assert result.exit_code in (1, 2)
    assert sentence in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_generate_passes_on_what_the_server_says(runner: CliRunner, live: LiveServer) -> None:
    result = runner.invoke(main, ["generate", "zq" * 200, "--url", live.url])
    assert result.exit_code == 1
    assert "tokens" in result.output
    with nowhere() as url:
        result = runner.invoke(main, ["generate", "a circle", "--url", url])
    assert result.exit_code == 75
    assert "Error:" in result.output


def test_models_marks_the_default(runner: CliRunner) -> None:
    assert runner.invoke(main, ["models"]).output == f"* {NAME}  Apache-2.0\n"


def test_help_names_every_verb() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    for verb in VERBS:
        assert f"\n  {verb} " in output


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    result = CliRunner().invoke(main, [verb, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage:")
