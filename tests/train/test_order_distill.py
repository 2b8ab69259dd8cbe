"""Extraction of orders: what is chosen, and that a broken run goes on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oar_core.config import OrderScore
from oar_core.errors import CheckpointError, ConfigError
from oar_core.models.base import Condition
from oar_core.order.certainty import log_probability
from oar_core.order.permutation import invert
from oar_core.order.score import CERTAINTIES
from oar_core.text import TextTokenizer
from oar_core.train.captions import plain_caption
from oar_core.train.checkpoint import load_tensors
from oar_core.train.stages.order_distill import (
    SCORES,
    TRUE_LOG_PROBABILITY,
    DistillConfig,
    OrderSet,
    compact,
    distill_orders,
    extract_orders,
    load_orders,
)
from oar_core.train.tokens import Captioner, TokenSet
from tests.engine.backbones import TINY, tiny_backbone
from tests.order.permutations import is_permutation

LENGTH = TINY.num_tokens
CONFIG = DistillConfig(num_images=10, batch_size=3, block_size=4)


def make_captioner(count: int = 12) -> Captioner:
    generator = torch.Generator().manual_seed(0)
    rows = [{"caption": "a cat"}, {"caption": "two dogs"}]
    tokens = TokenSet(
        torch.randint(TINY.vocab_size, (count, LENGTH), generator=generator), rows, torch.arange(count) % 2
    )
    return Captioner(tokens, ByteText(), plain_caption, TINY.max_condition)


class ByteText(TextTokenizer):
    """Few ids, as the tiny backbone has."""

    def __init__(self) -> None:
        pass

    def encode_captions(self, captions: list[str], *, max_length: int) -> list[tuple[int, ...]]:
        return [tuple(1 + ord(letter) % 15 for letter in caption)[:max_length] for caption in captions]


@pytest.fixture
def batch() -> tuple[Condition, torch.Tensor]:
    captioner = make_captioner()
    indices = torch.arange(5)
    return captioner.fixed(indices, 0, torch.device("cpu")), captioner.tokens.token_ids[:5]


@pytest.mark.parametrize("per_step", [1, 3, LENGTH])
@pytest.mark.parametrize("score", sorted(SCORES))
def test_every_position_is_ranked_once(batch, score, per_step):
    orders = extract_orders(tiny_backbone(), *batch, DistillConfig(score=score, positions_per_step=per_step))
    assert orders.shape == (5, LENGTH)
    assert all(is_permutation(order) for order in orders.tolist())


@pytest.mark.parametrize("score", sorted(SCORES))
def test_each_position_had_the_best_score_of_those_remaining(batch, score):
    """Against the training pass, in which the context of a rank are the true tokens before it."""
    condition, token_ids = batch
    backbone = tiny_backbone()
    orders = extract_orders(backbone, *batch, DistillConfig(score=score, distance_weight=0))
    for rank in (0, 4, LENGTH - 2):
        scores = []
        for candidate in range(rank, LENGTH):
            swapped = orders.clone()
            swapped[:, [rank, candidate]] = orders[:, [candidate, rank]]
            with torch.no_grad():
                logits = backbone(condition, token_ids.gather(1, swapped), swapped)[:, rank : rank + 1]
            true = token_ids.gather(1, swapped[:, rank : rank + 1])
            scores.append(certainty(score, logits, true))
        best = torch.cat(scores, dim=1)
        assert (best[:, 0] >= best.max(dim=1).values - 1e-4).all()


def test_the_scores_are_what_their_names_say():
    logits = torch.tensor([[[2.0, 1.0, -1.0, 0.5]]])
    log_probabilities = logits.log_softmax(-1)[0, 0]
    values = {name: certainty(name, logits, torch.tensor([[2]])).item() for name in SCORES}
    probability = log_probabilities[0].exp().item()
    assert values["max_probability"] == pytest.approx(torch.tensor(probability).logit().item(), rel=1e-4)
    assert values["true_log_probability"] == pytest.approx(log_probabilities[2].item())
    assert values["negative_entropy"] == pytest.approx((log_probabilities.exp() * log_probabilities).sum().item())
    assert values["margin"] == pytest.approx(1.0)


def test_the_score_functions_find_different_orders(batch):
    found = {tuple(extract_orders(tiny_backbone(), *batch, free(s)).flatten().tolist()) for s in SCORES}
    assert len(found) == len(SCORES)


def test_a_heavy_distance_makes_every_step_go_to_a_neighbour(batch):
    near = extract_orders(tiny_backbone(), *batch, DistillConfig(distance_weight=1e3))
    first = extract_orders(tiny_backbone(), *batch, DistillConfig(distance_weight=0))[:, 0]
    assert torch.equal(near[:, 0], first)
    for order in near.tolist():
        for rank in range(1, LENGTH):
            y, x = divmod(order[rank], TINY.grid[1])
            assert any(abs(y - v) + abs(x - u) == 1 for v, u in (divmod(p, TINY.grid[1]) for p in order[:rank]))


def certainty(score: str, logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    return log_probability(logits, true) if score == TRUE_LOG_PROBABILITY else CERTAINTIES[score](logits)


def free(score: str) -> DistillConfig:
    return DistillConfig(score=score, distance_weight=0)


def test_orders_of_different_scores_have_different_names() -> None:
    configs = [DistillConfig(score=score, distance_weight=weight) for score in SCORES for weight in (0, -1, 1, -0.5)]
    assert len({config.name for config in configs}) == len(configs)


def test_a_score_that_needs_the_truth_is_replaced_where_pictures_are_made() -> None:
    assert DistillConfig(score=TRUE_LOG_PROBABILITY).order_score.name == "max_probability"
    assert DistillConfig(score="margin", distance_weight=0.5).order_score == OrderScore("margin", 0.5)


def run(folder: Path, config: DistillConfig = CONFIG, stamp: int = 0):
    return distill_orders(tiny_backbone(), make_captioner(), config, folder, {"checkpoint": stamp})


def test_finished_shards_are_kept_and_the_rest_is_made_as_in_one_run(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    assert len(whole) == 10
    run(tmp_path / "broken", replace(CONFIG, num_images=8))
    first = tmp_path / "broken" / "00000.safetensors"
    before = first.stat().st_mtime_ns
    (tmp_path / "broken" / "00001.safetensors").unlink()
    again = run(tmp_path / "broken", replace(CONFIG, batch_size=4))
    assert first.stat().st_mtime_ns == before
    assert torch.equal(again.indices, whole.indices)
    assert torch.equal(again.orders, whole.orders)


@pytest.mark.parametrize("change", [{"stamp": 1}, {"config": replace(CONFIG, score="margin")}])
def test_a_shard_of_another_model_or_score_is_made_anew(tmp_path: Path, change) -> None:
    run(tmp_path)
    before = (tmp_path / "00000.safetensors").stat().st_mtime_ns
    few = replace(change.pop("config", CONFIG), num_images=4)
    run(tmp_path, few, **change)
    assert (tmp_path / "00000.safetensors").stat().st_mtime_ns != before
    assert len(load_orders(tmp_path)) == 4, "no shard of the former is left"


def test_orders_are_stored_in_bytes_and_read_back(tmp_path: Path) -> None:
    made = run(tmp_path)
    stored, _ = load_tensors(tmp_path / "00000.safetensors")
    assert stored["orders"].dtype == torch.uint8
    assert torch.equal(load_orders(tmp_path).orders, made.orders)


def test_positions_beyond_a_byte_take_two() -> None:
    wide = torch.arange(300)[None]
    assert compact(wide).dtype == torch.uint16
    assert torch.equal(compact(wide).long(), wide)


def test_pictures_are_a_seeded_sample_whose_start_does_not_depend_on_its_size(tmp_path: Path) -> None:
    few, many = run(tmp_path / "a", replace(CONFIG, num_images=5)), run(tmp_path / "b")
    assert torch.equal(few.indices, many.indices[:5])
    assert torch.equal(few.orders, many.orders[:5])
    assert few.indices.tolist() != list(range(5))


def test_a_folder_without_orders_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="oar distill"):
        load_orders(tmp_path)


@pytest.mark.parametrize("values", [{"score": "luck"}, {"num_images": 0}, {"positions_per_step": 0}])
def test_an_impossible_distillation_is_refused(values) -> None:
    with pytest.raises(ConfigError):
        DistillConfig(**values)


def test_orders_are_drawn_together() -> None:
    generator = torch.Generator().manual_seed(3)
    # Near one order, each with a few swaps, so that the mean ranks know it.
    base = torch.arange(LENGTH).flip(0)
    noisy = (base.expand(40, -1).argsort(-1) + 1.5 * torch.rand(40, LENGTH, generator=generator)).argsort(-1)
    own = OrderSet(torch.arange(40), noisy)
    assert torch.equal(own.drawn_together(0.0).orders, own.orders)
    one = own.drawn_together(1.0)
    assert len(one.orders.unique(dim=0)) == 1
    assert is_permutation(one.orders[0].tolist())
    assert torch.equal(invert(one.orders[0]).argsort(), invert(own.orders).float().mean(dim=0).argsort(stable=True))
    half = own.drawn_together(0.5)
    assert spread(one) == 0 < spread(half) < spread(own)
    assert torch.equal(half.indices, own.indices)


def spread(orders: OrderSet) -> float:
    return invert(orders.orders).float().std(dim=0).mean().item()
