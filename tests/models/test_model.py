"""A model folder with and without an order policy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import oar_core.models.load as loading
from oar_core.errors import ConfigError, OrderError, WeightsError
from oar_core.models.load import load_model
from oar_core.models.model import CONFIG, GROUP_TABLES, ORDER_TREE, POLICY, Model
from oar_core.nn.rounded_conv import has_bf16
from oar_core.order.plan import DEFAULT_CANDIDATES, DEFAULT_ENTROPY_BOUND, ORDERS, POLICY_ORDERS, PROMPTED, PlanSpec
from oar_core.order.tree import LEAF, OrderTree
from oar_core.sampling.defaults import default_plan
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.models.folders import write_golden_model
from tests.server.tiny import NAME, PROMPTED_ORDERS, PROMPTS, write_tiny_weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_weights(tmp_path)
    return tmp_path / NAME


def load(folder: Path) -> Model:
    return load_model(folder, "cpu", torch.float32)


def without_policy(folder: Path) -> None:
    (folder / POLICY).unlink()
    config = json.loads((folder / CONFIG).read_text())
    del config["policy"]
    (folder / CONFIG).write_text(json.dumps(config))


def change_policy(folder: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: torch.randn(value.shape, generator=generator) for name, value in load_file(folder / POLICY).items()
    }
    save_file(tensors, folder / POLICY)


def positions_of(pipeline: Model) -> list[int]:
    seen: list[int] = []
    request = SequenceRequest("a", (0, 3), 1, 0, PlanSpec(order="distilled", steps=5), SamplingParams())
    generate(
        pipeline.backbone, [request], (0,), on_step=lambda i, step, steps, new: seen.extend(p.position for p in new)
    )
    return seen


def test_a_model_without_a_policy_offers_every_order_but_those_of_a_policy(folder: Path) -> None:
    without_policy(folder)
    pipeline = load(folder)
    assert set(ORDERS) - set(pipeline.orders) == set(POLICY_ORDERS)
    with pytest.raises(OrderError, match="no order policy"):
        positions_of(pipeline)


def test_a_model_without_an_order_tree_offers_all_but_the_order_that_prompts_decide(folder: Path) -> None:
    (folder / ORDER_TREE).unlink()
    model = load(folder)
    assert set(ORDERS) - set(model.orders) == {PROMPTED}
    request = SequenceRequest("a", (0, 3), 1, 0, PlanSpec(order=PROMPTED, steps=5), SamplingParams())
    with pytest.raises(OrderError, match="keeps no orders for its prompts"):
        generate(model.backbone, [request], (0,))


def test_a_prompt_decides_the_order_of_a_model_with_an_order_tree(folder: Path) -> None:
    model = load(folder)
    for prompt, order in zip(PROMPTS, PROMPTED_ORDERS, strict=True):
        ids = model.encode_prompt(prompt)
        seen: list[int] = []
        generate(
            model.backbone,
            [SequenceRequest("a", ids, 1, 0, PlanSpec(order=PROMPTED, steps=20), SamplingParams(guidance=2.0))],
            model.unconditional_ids,
            on_step=lambda i, step, steps, new, seen=seen: seen.extend(patch.position for patch in new),
        )
        assert tuple(seen) == order


def test_other_orders_for_prompts_are_another_model(folder: Path) -> None:
    first = load(folder)
    tree = first.backbone.order_tree
    assert tree is not None
    save_file(OrderTree(tree.nodes, tree.orders.flip(0)).tensors(), folder / ORDER_TREE)
    assert load(folder).model_hash != first.model_hash


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"nodes": torch.tensor([[LEAF, 0, 0]])}, "an order tree has nodes and orders"),
        ({"nodes": torch.tensor([[LEAF, 0, 0]]), "orders": torch.arange(9)[None]}, "orders 9 positions, and the model"),
        ({"nodes": torch.tensor([[LEAF, 7, 7]]), "orders": torch.arange(20)[None]}, "do not lead to its orders"),
    ],
)
def test_an_order_tree_that_does_not_fit_names_its_file(
    folder: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    save_file(tensors, folder / ORDER_TREE)
    with pytest.raises(WeightsError, match=f"{ORDER_TREE}.*{message}"):
        load(folder)


def test_a_model_with_a_policy_offers_distilled_and_goes_by_it(folder: Path) -> None:
    first = load(folder)
    assert first.orders == ORDERS
    order = positions_of(first)
    assert sorted(order) == list(range(20))
    change_policy(folder)
    second = load(folder)
    assert positions_of(second) != order
    assert second.model_hash != first.model_hash


@pytest.mark.parametrize(
    ("name", "usual", "own"), [("entropy_bound", DEFAULT_ENTROPY_BOUND, 2.5), ("candidates", DEFAULT_CANDIDATES, 3)]
)
def test_a_model_may_name_what_a_plan_usually_leaves_open(folder: Path, name: str, usual: float, own: float) -> None:
    assert getattr(default_plan(load(folder)), name) == usual
    config = json.loads((folder / CONFIG).read_text())
    config["defaults"][name] = own
    (folder / CONFIG).write_text(json.dumps(config))
    assert getattr(default_plan(load(folder)), name) == own


def with_tables(folder: Path, tables: dict[str, dict[str, list[int]]]) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, GROUP_TABLES: tables}))


def test_a_models_own_group_sizes_are_those_of_its_plan(folder: Path) -> None:
    assert "fitted" not in load(folder).group_sizes
    with_tables(folder, {"random": {"8": [1, 1, 1, 1, 2, 3, 5, 6], "2": [4, 16]}})
    model = load(folder)
    assert model.group_sizes[0] == "fitted"
    assert default_plan(model).group_sizes == (1, 1, 1, 1, 2, 3, 5, 6)
    assert default_plan(model, steps=2).group_sizes == (4, 16)
    assert default_plan(model, steps=3).group_sizes == "cosine"
    assert default_plan(model, order="raster").group_sizes == "cosine"
    assert default_plan(model, group_sizes="linear").group_sizes == "linear"
    assert default_plan(model, group_sizes=(15, 5)).steps == 2


@pytest.mark.parametrize("sizes", [[4, 15], [20]])
def test_own_group_sizes_that_do_not_fit_are_refused(folder: Path, sizes: list[int]) -> None:
    with_tables(folder, {"random": {"2": sizes}})
    with pytest.raises(ConfigError, match="group_tables of random in 2 steps"):
        load(folder)


def test_a_policy_that_the_config_promises_has_to_be_there(folder: Path) -> None:
    (folder / POLICY).unlink()
    with pytest.raises(WeightsError, match=r"policy\.safetensors is missing"):
        load(folder)


def test_a_folder_of_format_1_is_read_as_the_native_family(folder):
    assert "format" not in json.loads((folder / CONFIG).read_text())
    model = load(folder)
    assert (model.family, model.conditioner.kind) == ("oar", "text")


def test_a_later_format_is_refused_with_a_sentence(folder):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(ConfigError, match="has format 99"):
        load(folder)


@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="this CPU has no instructions for bf16")
@pytest.mark.parametrize("family", ["arpg", "lpd"])
def test_pictures_that_are_decoded_in_bf16_are_the_same_but_for_rounding(tmp_path, family):
    write_golden_model(family, tmp_path / family)
    exact, rounded = (
        load_model(tmp_path / family, "cpu", torch.float32, decode_dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    token_ids = torch.randint(64, (3, 16), generator=torch.Generator().manual_seed(3))
    pictures = exact.decode(token_ids).astype(int), rounded.decode(token_ids).astype(int)
    assert 0 < np.abs(pictures[0] - pictures[1]).mean() < 3
    assert (exact.encode(exact.decode(token_ids)) == rounded.encode(exact.decode(token_ids))).all()
    assert next(rounded.backbone.parameters()).dtype is torch.float32


def test_a_cpu_without_bf16_decodes_in_fp32_alone(tmp_path, monkeypatch):
    write_golden_model("arpg", tmp_path / "arpg")
    monkeypatch.setattr(loading, "has_bf16", lambda _device: False)
    with pytest.raises(ConfigError, match="this CPU has no instructions"):
        load_model(tmp_path / "arpg", "cpu", torch.float32, decode_dtype=torch.bfloat16)
