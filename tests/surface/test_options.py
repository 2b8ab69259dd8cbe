"""An option is declared once: one that is added at run time is found wherever options are told or checked."""

import dataclasses
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

from oar_core.order.plan import DEFAULT_CANDIDATES, DEFAULT_ENTROPY_BOUND, PlanSpec
from oar_core.sampling.guidance import scale_at
from oar_core.sampling.sampler import SamplingParams
from oar_wire.options import OPTIONS, GuidanceSchedule

ROOT = Path(__file__).parents[2]
NAME, DEFAULT, GREATEST = "sharpness", 1.5, 5
ADD = """
from typing import Annotated
from pydantic import create_model
from oar_wire import options

about = options.About("How sharp edges are", ge=0, le=5, usual=(0, 5, 0.5))
kind = Annotated[float, about]
options.SamplingOptions = create_model("SamplingOptions", __base__=options.SamplingOptions, sharpness=(kind, 1.5))
options.OPTIONS.update(options.collect("sampling", options.SamplingOptions))
"""
LOOK = """
import json, sys
from pathlib import Path
from click.testing import CliRunner
from fastapi.testclient import TestClient
from oar_core.errors import ConfigError, RequestError, check_options
from oar_core.train.recipe_file import read_recipe
from oar_core.train.recipe import SamplingDefaults
from oar_wire.job import GenerationParams
from oar_wire.model import GenerationDefaults, ModelInfo, describe_options
from oar_wire.openai import ImagesRequest
from oar_wire.request import GenerationRequest
from ops import client_options
from ops.documents import TABLES
from server.api.app import create_app
from server.api.codes import error_codes
from server.api.validation import resolve
from oar_cli.generate import generate_command as generate
from server.settings import Settings

def refusal(call):
    try:
        call()
    except (ConfigError, RequestError) as error:
        return str(error)

def recipe(value):
    path = Path(sys.argv[1]) / "mine.toml"
    path.write_text(f'base = "sprites-64"\\n[defaults]\\nsharpness = {value}\\n')
    return read_recipe(path).defaults.sharpness

info = ModelInfo(name="tiny", grid=(2, 3), image_size=(8, 12), orders=("raster",), group_sizes=("cosine",),
                 defaults=GenerationDefaults(steps=3, sharpness=2.5))
asked = GenerationRequest(prompt="x", sharpness=0.5)
params = [resolve(request, info, Settings()) for request in (asked, GenerationRequest(prompt="x"))]
stored = json.loads(params[0].model_dump_json())
app = create_app(Settings())
schema = app.openapi()["components"]["schemas"]
print(json.dumps({
    "http": [schema[name]["properties"]["sharpness"] for name in ("GenerationRequest", "ImagesRequest")],
    "code": [error.code for error in error_codes() if "sharpness" in (error.field or "")],
    "openai": ImagesRequest(prompt="x", sharpness=1).to_generation(info).sharpness,
    "params": [one.sharpness for one in params],
    "stored": GenerationParams.model_validate(stored).sharpness,
    "older": GenerationParams.model_validate({k: v for k, v in stored.items() if k != "sharpness"}).sharpness,
    "card": [entry.model_dump() for entry in describe_options(info) if entry.name == "sharpness"],
    "usual": GenerationDefaults().sharpness,
    "recipe": [SamplingDefaults().sharpness, recipe(3.5), refusal(lambda: recipe(9.0))],
    "library": refusal(lambda: check_options({"sharpness": 9.0})),
    "help": CliRunner().invoke(generate, ["--help"]).output,
    "client": client_options.options_source(),
    "table": TABLES["request fields"](),
}))
"""


@cache
def found(folder: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ADD + LOOK, folder], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return found(str(tmp_path_factory.mktemp("recipes")))


def test_requests_take_it_within_its_bounds(told: dict[str, Any]) -> None:
    number = {"type": "number", "minimum": 0, "maximum": GREATEST}
    for field in told["http"]:
        assert field["anyOf"] == [number, {"type": "null"}]
        assert field["description"] == "How sharp edges are"
    assert told["code"] == ["invalid_sampling"]
    assert told["openai"] == 1


def test_a_job_carries_it_or_the_models_default(told: dict[str, Any]) -> None:
    assert told["params"] == [0.5, 2.5]
    assert (told["stored"], told["older"]) == (0.5, DEFAULT)


def test_the_model_card_describes_it_for_forms(told: dict[str, Any]) -> None:
    (entry,) = told["card"]
    assert (entry["group"], entry["label"], entry["kind"]) == ("sampling", "Sharpness", "number")
    assert (entry["default"], entry["minimum"], entry["maximum"]) == (2.5, 0, GREATEST)
    assert (entry["description"], entry["usual"]) == ("How sharp edges are", [0, GREATEST, 0.5])
    assert told["usual"] == DEFAULT


def test_recipes_name_it_and_the_library_refuses_it_alike(told: dict[str, Any]) -> None:
    usual, named, refusal = told["recipe"]
    assert (usual, named) == (DEFAULT, 3.5)
    assert refusal.endswith(told["library"])
    assert told["library"] == f"{NAME} is 9.0; it lies between 0 and {GREATEST}"


def test_the_command_line_the_client_and_the_documents_have_it(told: dict[str, Any]) -> None:
    assert "--sharpness FLOAT" in told["help"]
    assert f"    {NAME}: float | None\n" in told["client"]
    assert f"| `{NAME}` |  | ≥ 0, ≤ {GREATEST} | How sharp edges are |" in told["table"]


# what has types of its own


@pytest.mark.parametrize(("settings", "group"), [(PlanSpec, "plan"), (SamplingParams, "sampling")])
def test_what_the_library_acts_on_is_declared(settings: type, group: str) -> None:
    for field in dataclasses.fields(settings):
        if field.name == "of_rule":  # what else is declared, for the rules of chosen orders
            continue
        option = OPTIONS[field.name]
        assert option.group == group
        assert option.about.sentence
        if field.name not in {"order", "steps"}:  # the library's own: at random, one position a step
            assert field.default == option.default


def test_every_schedule_that_is_offered_is_one() -> None:
    scales = [scale_at(3.0, name, (0.0, 1.0), 0.25) for name in get_args(GuidanceSchedule)]
    assert len(set(scales)) == len(scales)
    assert all(1 <= scale <= 3 for scale in scales)
    assert OPTIONS["candidates"].default == DEFAULT_CANDIDATES
    assert OPTIONS["entropy_bound"].default == DEFAULT_ENTROPY_BOUND


def test_a_recipe_may_name_what_it_could_not(tmp_path: Path) -> None:
    from oar_core.train.recipe_file import read_recipe

    path = tmp_path / "mine.toml"
    path.write_text('base = "pictures-64"\n[defaults]\ncandidates = 3\norder = "shortlist"\nentropy_bound = 2.5\n')
    defaults = read_recipe(path).defaults
    assert (defaults.candidates, defaults.order, defaults.entropy_bound) == (3, "shortlist", 2.5)
