"""Stage 2: the order in which the frozen any-order model is most certain, for each training picture.

Teacher forced: the model is asked about every remaining position, the one of the best score is next, and its true token
is committed. One order a picture is kept, in shards, so that an extraction that was killed goes on from its last shard.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from oar_core.config import ORDER_SCORES, OrderScore
from oar_core.errors import CheckpointError, ConfigError
from oar_core.models.base import Commit, Condition, Query
from oar_core.models.ordered import OrderedBackbone
from oar_core.nn.kv_cache import KVCache
from oar_core.order.certainty import log_probability
from oar_core.order.paths import Grid
from oar_core.order.permutation import invert
from oar_core.order.score import distance_to_known, score_positions
from oar_core.sampling.forced_order import forced_orders
from oar_core.train.checkpoint import load_tensors, save_tensors
from oar_core.train.parallel import Processes
from oar_core.train.tokens import Captioner

SHARDS = "[0-9]*.safetensors"

# Looks at what is to be told: it orders training pictures, and is of no use where a picture is made.
TRUE_LOG_PROBABILITY = "true_log_probability"
SCORES = (*ORDER_SCORES, TRUE_LOG_PROBABILITY)


@dataclass(frozen=True)
class DistillConfig:
    num_images: int = 20_000  # the first ones of a seeded permutation of the training set
    score: str = "negative_entropy"  # one of SCORES
    distance_weight: float = -1.0  # of `OrderScore`: negative weights spread out
    positions_per_step: int = 1  # more are faster, and rank positions of a step by what is known before all of them
    batch_size: int = 64
    block_size: int = 1024  # images per shard
    seed: int = 0

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ConfigError(f"unknown score {self.score!r}; there are {', '.join(SCORES)}")
        if min(self.num_images, self.positions_per_step, self.batch_size, self.block_size) < 1:
            raise ConfigError("num_images, positions_per_step, batch_size and block_size are positive")

    @property
    def name(self) -> str:
        """Tells orders of different scores apart."""
        return f"{self.score}{self.distance_weight:+g}" if self.distance_weight else self.score

    @property
    def order_score(self) -> OrderScore:
        """The score nearest to it that works while a picture is made, without known tokens."""
        return OrderScore("max_probability" if self.score == TRUE_LOG_PROBABILITY else self.score, self.distance_weight)


@dataclass(frozen=True)
class OrderSet:
    """One order for each of some pictures: `orders[n, i]` is the position of rank i of picture `indices[n]`."""

    indices: Int[Tensor, "M"]
    orders: Int[Tensor, "M L"]

    def __len__(self) -> int:
        return len(self.indices)

    def drawn_together(self, share: float) -> "OrderSet":
        """The same pictures with their ranks drawn to the mean over all of them: 0 leaves each its own order, 1 gives
        all of them one order, that of the mean ranks."""
        ranks = invert(self.orders).float()
        blended = ranks.lerp(ranks.mean(dim=0).expand_as(ranks), share)
        return replace(self, orders=blended.argsort(dim=1, stable=True))


def extract_orders(
    backbone: OrderedBackbone, condition: Condition, token_ids: Int[Tensor, "B L"], config: DistillConfig
) -> Int[Tensor, "B L"]:
    """The orders of a batch of pictures, whose tokens are in grid order."""

    def score(cache: KVCache, commit: Commit, asked: Query) -> Float[Tensor, "B G"]:
        shape = (len(token_ids), -1)
        logits = backbone.ask_alone(cache, torch.arange(len(token_ids)), commit, asked).float().unflatten(0, shape)
        return _scores(logits, token_ids, asked.positions.view(shape), backbone.spec.grid, config)

    return forced_orders(backbone, condition, token_ids, score, per_step=config.positions_per_step)


def _scores(
    logits: Float[Tensor, "B G V"],
    token_ids: Int[Tensor, "B L"],
    remaining: Int[Tensor, "B G"],
    grid: Grid,
    config: DistillConfig,
) -> Float[Tensor, "B G"]:
    widths = torch.full((len(remaining),), remaining.shape[1], device=remaining.device)
    if config.score != TRUE_LOG_PROBABILITY:
        return score_positions(logits, remaining, widths, grid, config.order_score)
    certainty = log_probability(logits, token_ids.gather(1, remaining))
    return certainty - config.distance_weight * distance_to_known(remaining, widths, grid)


def distill_orders(
    backbone: OrderedBackbone, captioner: Captioner, config: DistillConfig, folder: Path, stamp: dict[str, Any]
) -> OrderSet:
    """Extracts the orders of `num_images` pictures into `folder`, a shard for each block; finished ones are kept.

    `stamp` names what the orders are made with; shards of another stamp or config are removed first. Processes that
    train together share out the blocks.
    """
    processes = Processes.current()
    picked = torch.randperm(len(captioner.tokens), generator=torch.Generator().manual_seed(config.seed))
    blocks = picked[: config.num_images].split(config.block_size)
    stamp = {**stamp, "config": {key: value for key, value in asdict(config).items() if key not in _FREE}}
    if processes.is_first:
        for path in folder.glob(SHARDS):
            if load_tensors(path)[1]["stamp"] != stamp:
                path.unlink()
    processes.wait()
    own = [(number, blocks[number]) for number in processes.mine(len(blocks))]
    total, is_silent = sum(len(indices) for _, indices in own), not processes.is_first
    with tqdm(total=total, desc="distilling", unit="image", mininterval=2.0, disable=is_silent) as bar:
        for number, indices in own:
            path = folder / f"{number:05d}.safetensors"
            if not _is_finished(path, indices):
                orders = _extract_block(backbone, captioner, config, indices, bar)
                save_tensors(path, {"indices": indices, "orders": compact(orders)}, {"stamp": stamp})
            else:
                bar.update(len(indices))
    processes.wait()
    return load_orders(folder, len(blocks))


_FREE = {"num_images", "batch_size"}  # they do not change a picture's order


def _is_finished(path: Path, indices: Int[Tensor, "M"]) -> bool:
    """The last shard of a smaller extraction holds fewer pictures."""
    return path.exists() and torch.equal(load_tensors(path)[0]["indices"], indices)


def _extract_block(
    backbone: OrderedBackbone, captioner: Captioner, config: DistillConfig, indices: Int[Tensor, "M"], bar: "tqdm[Any]"
) -> Int[Tensor, "M L"]:
    parts: list[Tensor] = []
    device = backbone.new_cache(1).keys.device
    for batch in indices.split(config.batch_size):
        condition = captioner.fixed(batch, config.seed, device)
        token_ids = captioner.tokens.token_ids[batch].long().to(device)
        parts.append(extract_orders(backbone, condition, token_ids, config).cpu())
        bar.update(len(batch))
    return torch.cat(parts)


def compact(orders: Int[Tensor, "M L"]) -> Tensor:
    """Stores positions as bytes where they fit, as 16-bit words otherwise."""
    return orders.to(torch.uint8 if orders.shape[1] <= 256 else torch.uint16)


def load_orders(folder: Path, num_shards: int | None = None) -> OrderSet:
    """All the shards of a folder, or the first ones. Raises CheckpointError where there is none."""
    paths = sorted(folder.glob(SHARDS))[:num_shards]
    if not paths:
        raise CheckpointError(f"{folder} holds no distilled orders; run `oar distill` first")
    shards = [load_tensors(path)[0] for path in paths]
    return OrderSet(
        torch.cat([shard["indices"] for shard in shards]), torch.cat([shard["orders"].long() for shard in shards])
    )
