"""`--json`: every verb that answers has it, and then its stdout is one JSON document."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from oar_cli import VERBS, main
from oar_cli.answer import Answer, AnswerCommand
from tests.server.live import LiveServer
from tests.server.tiny import NAME

SILENT = {"serve", "api", "worker", "completion"}  # they run until they are stopped; the last prints a script
PICTURES = {"generate", "edit"}  # what they print is told by their own tests
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("json"), weights_dir) as server:
        yield server


def leaves() -> Iterator[tuple[str, click.Command]]:
    """Every command with its path of words."""
    context = click.Context(main)
    waiting = [((verb,), main.get_command(context, verb)) for verb in VERBS]
    while waiting:
        words, command = waiting.pop()
        if isinstance(command, click.Group):
            waiting += [((*words, name), child) for name, child in command.commands.items()]
        elif command is not None:
            yield " ".join(words), command


LEAVES = dict(leaves())


@pytest.mark.parametrize("words", sorted(LEAVES.keys() - SILENT - PICTURES))
def test_every_verb_that_answers_takes_json(words: str) -> None:
    assert "--json" in {name for option in LEAVES[words].params for name in option.opts}
    assert "--json" in CliRunner().invoke(main, [*words.split(), "--help"]).output


@pytest.mark.parametrize("words", sorted(words for words, leaf in LEAVES.items() if type(leaf) is AnswerCommand))
def test_what_is_to_answer_returns_an_answer(words: str) -> None:
    callback = LEAVES[words].callback
    assert callback is not None
    assert inspect.signature(callback).return_annotation is Answer


def told(*words: str) -> object:
    """The document on stdout; what is not JSON, and a second document, fail."""
    result = CliRunner().invoke(main, [*words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_verbs_of_a_server_print_one_document(
    live: LiveServer, weights_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAR_WEIGHTS_DIR", str(weights_dir))
    monkeypatch.setenv("OAR_DATA_DIR", str(live.data_dir / "data"))
    job = live.post(wait=60).json()["id"]
    assert [model["name"] for model in told("models")] == [NAME]
    assert told("top", "--once", "--interval", "0.1", "--url", live.url)["models"]
    assert told("jobs", "list") == []
    assert [found["id"] for found in told("jobs", "list", "--all", "--limit", "1")]
    assert told("jobs", "show", job)["state"] == "completed"
    assert told("jobs", "cancel", job)["state"] == "completed"
    assert told("jobs", "dead") == []
    made = told("keys", "new", "studio", "--file", str(tmp_path / "keys.toml"))
    assert isinstance(made, dict)
    (listed,) = told("keys", "list", "--file", str(tmp_path / "keys.toml"))
    assert listed["tenant"] == "studio"
    assert made["hash"].startswith(listed["keys"][0].rstrip("…"))


def test_measurements_print_one_document(weights_dir: Path, tmp_path: Path) -> None:
    weights = ["--weights", str(weights_dir)]
    assert told("eval", "model", *weights)["name"] == NAME
    assert told("eval", "painting", "--out", str(tmp_path / "a.png"), *weights)["seed"] == 7
    assert told("eval", "animation", "--out", str(tmp_path / "a.webp"), *weights)["orders"] == ["random"]
    assert told("bench", "batching", "--images", "2", "--repeats", "1", *weights)["num_images"] == 2
    assert {recipe["name"] for recipe in told("train", "recipes")} >= {"pictures-64", "fashion"}


def test_once_prints_a_snapshot_for_people(live: LiveServer) -> None:
    result = CliRunner().invoke(main, ["top", "--once", "--interval", "0.1", "--url", live.url])
    assert result.exit_code == 0
    assert NAME in result.stdout


def test_what_is_printed_on_the_way_does_not_reach_stdout() -> None:
    """A library may print; a program that reads the document must not see it."""

    @click.command(cls=AnswerCommand)
    def noisy() -> Answer:
        print("progress")  # noqa: T201
        click.echo("more")
        return Answer({"found": 3}, ["three"], exit_code=4)

    result = CliRunner().invoke(noisy, ["--json"])
    assert json.loads(result.stdout) == {"found": 3}
    assert result.exit_code == 4
    result = CliRunner().invoke(noisy, [])
    assert (result.stdout, result.stderr) == ("three\n", "progress\nmore\n")


def test_an_error_leaves_stdout_empty() -> None:
    result = CliRunner().invoke(main, ["eval", "model", "--weights", "/nowhere", "--json"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "manifest.toml does not exist" in result.stderr
