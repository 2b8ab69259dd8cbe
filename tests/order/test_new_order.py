"""A chosen order with a parameter is a file, a line of the registry and one declared option: walked in a copy."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("oar_cli", "oar_client", "oar_core", "oar_lab", "oar_wire", "ops", "server")
RULE = '''"""`bold`: the surest first, or the least sure, as far as `boldness` says."""

from jaxtyping import Float
from torch import Tensor

from oar_core.order.certainty import entropy
from oar_core.order.rules.base import Asked, Decider, OrderRule


class Boldness(Decider):
    def scores(self, asked: Asked) -> Float[Tensor, "R G"]:
        return asked.as_table(-entropy(asked.logits)) * asked.options["boldness"][:, None]


BOLD = OrderRule("bold", "surest first, or last", decider=Boldness(), options=("boldness",))
'''
OPTION = """    boldness: Annotated[
        float, About("1: the surest first, -1: the least sure", ge=-1, le=1, usual=(-1, 1, 0.1), only=("order", "bold"))
    ] = 1.0


class SamplingOptions(Sent):"""
LOOK = """
import json, sys
from pathlib import Path
import torch
from click.testing import CliRunner
from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.errors import StepsError
from oar_core.models.base import Condition
from oar_core.models.load import load_model
from oar_core.order.plan import PlanSpec
from oar_core.order.rules import RULES
from oar_core.sampling.forced_order import by_rule, forced_orders
from oar_core.sampling.request import KnownTokens
from oar_wire.job import GenerationParams
from oar_wire.model import describe_options
from oar_wire.request import GenerationRequest
from server.api.app import create_app
from server.api.validation import resolve
from oar_cli import main
from server.settings import Settings
from server.worker.models import load_models
from server.worker.running import read_prompts, sequence_request
from tests.server.tiny import NAME, PROMPTS, write_tiny_weights

weights = Path(sys.argv[1])
write_tiny_weights(weights)
settings = Settings(weights_dir=weights, threads=1)
(served,) = load_models(settings)
info = served.info()
model = load_model(weights / NAME, "cpu", torch.float32)

def params(**asked):
    settled = resolve(GenerationRequest(prompt=PROMPTS[0], order="bold", steps=20, seed=3, **asked), info, settings)
    return GenerationParams.model_validate_json(settled.model_dump_json())

def drawn(*several):
    engine = Engine(model.backbone, model.unconditional_ids, EngineConfig(2 * len(several)))
    for index, one in enumerate(several):
        engine.add(sequence_request(one, read_prompts(one, model), str(index), 0, KnownTokens()))
    orders, tokens = {}, {}
    while engine.has_work:
        for event in engine.step():
            if hasattr(event, "patches"):
                orders.setdefault(event.sequence_id, []).extend(patch.position for patch in event.patches)
            if hasattr(event, "token_ids"):
                tokens[event.sequence_id] = event.token_ids
    return [(orders[str(index)], list(tokens[str(index)])) for index in range(len(several))]

def forced(token_ids, boldness):
    condition = Condition.stack([model.encode_prompt(PROMPTS[0])], torch.device("cpu"))
    scorer = by_rule(RULES["bold"], model.backbone, of_rule={"boldness": boldness})
    return forced_orders(model.backbone, condition, torch.tensor([token_ids]), scorer)[0].tolist()

def refusal(**values):
    try:
        PlanSpec.of({"order": "bold", **values})
    except StepsError as error:
        return str(error)

def plan(one):
    return sequence_request(one, read_prompts(one, model), "x", 0, KnownTokens()).plan

asked = [params(guidance=1.0, boldness=boldness) for boldness in (1.0, -1.0)]
alone, together = [drawn(one)[0] for one in asked], drawn(*asked)
entries = {entry.name: entry.model_dump() for entry in describe_options(info)}
schema = create_app(Settings()).openapi()["components"]["schemas"]["GenerationRequest"]["properties"]
print(json.dumps({
    "orders": list(info.orders), "entry": entries["boldness"], "repulsion": entries["repulsion"]["only"],
    "usual": params().boldness, "plan": [dict(plan(one).of_rule) for one in asked],
    "alone": alone, "together": together, "forced": [forced(alone[0][1], 1.0), forced(alone[1][1], -1.0)],
    "refused": refusal(boldness=2.0), "http": schema["boldness"]["description"],
    "help": [CliRunner().invoke(main, [*words, "--help"]).output for words in (["generate"], ["eval", "quality"])],
}))
"""


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the library, the server and the command line say in a copy to which the order was added."""
    folder = tmp_path_factory.mktemp("copy")
    for name in (*PACKAGES, "tests/server"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    rules = folder / "oar_core" / "order" / "rules"
    (rules / "bold.py").write_text(RULE, encoding="utf-8")
    add(rules / "__init__.py", "RULES = {rule.name: rule for rule in (", "BOLD, ")
    add(rules / "__init__.py", "import Asked, Decider, OrderRule\n", "from oar_core.order.rules.bold import BOLD\n")
    options = folder / "oar_wire" / "options.py"
    text = options.read_text(encoding="utf-8")
    assert text.count("\n\nclass SamplingOptions(Sent):") == 1
    options.write_text(text.replace("\n\nclass SamplingOptions(Sent):", OPTION), encoding="utf-8")
    script = [sys.executable, "-W", "error", "-c", LOOK, str(folder / "weights")]
    done = subprocess.run(script, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def add(path: Path, behind: str, words: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert behind in text
    path.write_text(text.replace(behind, behind + words, 1), encoding="utf-8")


def test_the_server_offers_it_with_its_parameter(walked: dict[str, Any]) -> None:
    assert "bold" in walked["orders"]
    assert (walked["entry"]["minimum"], walked["entry"]["maximum"], walked["entry"]["only"]) == (
        -1,
        1,
        ["order", "bold"],
    )
    assert "bold" in walked["repulsion"]  # what holds of every chosen order holds of it
    assert walked["http"] == "1: the surest first, -1: the least sure"
    for text in walked["help"]:
        assert "--boldness FLOAT" in text, text


def test_a_request_carries_the_parameter_to_the_rule(walked: dict[str, Any]) -> None:
    assert walked["usual"] == 1.0
    assert walked["plan"] == [{"boldness": 1.0}, {"boldness": -1.0}]
    assert walked["refused"] == "boldness is 2.0; it lies between -1 and 1"


def test_its_value_decides_the_order_in_any_company(walked: dict[str, Any]) -> None:
    (surest, _), (least, _) = walked["alone"]
    assert surest != least
    assert sorted(surest) == sorted(least) == list(range(20))
    assert walked["together"] == walked["alone"]


def test_the_order_that_is_drawn_is_the_order_that_is_forced(walked: dict[str, Any]) -> None:
    assert walked["forced"] == [order for order, _ in walked["alone"]]
