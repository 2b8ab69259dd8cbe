"""Words that a model has never seen are reported: in the answer, in the job, in OpenAI's shape, on the command line."""

import json
from pathlib import Path

from click.testing import CliRunner

from oar_cli import main
from tests.server.live import LiveServer
from tests.server.tiny import write_tiny_weights

CAT = "'cat' is not in this model's vocabulary"
DOG = "'dog' is not in this model's vocabulary"


def test_an_accepted_job_tells_them_and_so_does_a_later_look(live: LiveServer) -> None:
    accepted = live.post(prompt="a red cat", negative_prompt="a blue dog").json()
    assert accepted["warnings"] == [CAT, DOG]
    assert live.client.get(accepted["url"]).json()["warnings"] == [CAT, DOG]
    done = live.post(prompt="a red cat", wait=20).json()
    assert (done["status"], done["warnings"]) == ("completed", [CAT])
    assert "warnings" not in done["params"]


def test_a_prompt_of_known_words_has_none(live: LiveServer) -> None:
    assert live.post(prompt="a Blue CIRCLE, seen from the front").json()["warnings"] == []


def test_openais_shape_tells_them_with_its_own(live: LiveServer) -> None:
    response = live.client.post("/v1/images/generations", json={"prompt": "a red cat", "steps": 2})
    assert response.status_code == 200
    assert CAT in response.json()["oar"]["warnings"]
    assert CAT in response.headers["OAR-Warning"]


def test_the_command_line_prints_them_beside_the_result(live: LiveServer, tmp_path: Path) -> None:
    where = ["--url", live.url, "--out", str(tmp_path / "out.png"), "--steps", "2", "--json"]
    result = CliRunner().invoke(main, ["generate", "a red cat", *where])
    assert result.exit_code == 0, result.output
    assert f"warning: {CAT}" in result.stderr.splitlines()
    assert json.loads(result.stdout)["warnings"] == [CAT]


def test_the_model_in_this_process_prints_them_too(tmp_path: Path) -> None:
    write_tiny_weights(tmp_path / "weights")
    environment = {"OAR_WEIGHTS_DIR": str(tmp_path / "weights"), "OAR_THREADS": "1"}
    arguments = ["generate", "a red cat", "--out", str(tmp_path / "out.png"), "--steps", "2"]
    result = CliRunner().invoke(main, arguments, env=environment)
    assert result.exit_code == 0, result.output
    assert f"warning: {CAT}" in result.stderr.splitlines()
