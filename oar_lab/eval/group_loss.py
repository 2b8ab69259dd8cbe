"""Cost of decoding several positions at once, from the likelihood of held-out pictures, and the sizes that cost
the least.

A[K, r] is the mean loss, in nats a picture, of the true token at rank r of an order when the first K ranks are known. A
step that decodes ranks k to k + n - 1 together draws each of them knowing the first k alone, so it costs the sum of
A[k, k..k + n - 1], and a schedule the sum over its steps. One position a step costs the diagonal, which is the
picture's likelihood; what a schedule costs above it is what its steps ignore.

This is of the conditional model without guidance, along orders that were found one position at a time.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from oar_core.errors import ConfigError, StepsError
from oar_core.models.base import Backbone, Commit, Condition, Prefix, Query
from oar_core.sampling.forced_order import orders_by_name

LossTable = Float[Tensor, "L L"]


@torch.inference_mode()
def loss_table(
    backbone: Backbone,
    token_ids: Int[Tensor, "M L"],
    conditions: Sequence[Prefix],
    order: str,
    *,
    batch_size: int = 32,
    seed: int = 0,
    first: int = 0,
) -> LossTable:
    """A in fp64, zero where r < K: one pass over each picture's ranks, which asks for all later ones at each of them.

    `first` is the number of the first picture, of which random orders are a function. Raises ConfigError for a backbone
    whose queries see each other, OrderError for an order that looks at draws.
    """
    if not backbone.spec.can_ask_all:
        raise ConfigError("this backbone's positions see each other when they are asked together, so A does not add up")
    device = next(backbone.parameters()).device
    total = torch.zeros(token_ids.shape[1], token_ids.shape[1], dtype=torch.float64)
    with tqdm(total=len(token_ids), desc=f"losses, {order}", unit="picture") as bar:
        for start in range(0, len(token_ids), batch_size):
            ids = token_ids[start : start + batch_size].to(device)
            condition = Condition.stack(conditions[start : start + batch_size], device)
            positions = orders_by_name(backbone, order, condition, ids, seed=seed, first=first + start)
            total += _summed_losses(backbone, condition, ids.gather(1, positions), positions)
            bar.update(len(ids))
    return total / len(token_ids)


def _summed_losses(
    backbone: Backbone, condition: Condition, ordered: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]
) -> LossTable:
    """Over a batch; tokens and positions by rank."""
    batch, length = ordered.shape
    slots, cache = torch.arange(batch), backbone.new_cache(batch)
    backbone.prefill(cache, slots, condition, _commit(ordered, positions, 0, 0))
    table = torch.zeros(length, length, dtype=torch.float64)
    for known in range(length):
        commit = _commit(ordered, positions, max(known - 1, 0), known)
        logits = backbone.step(cache, slots, commit, Query.grid(positions[:, known:]))
        losses = F.cross_entropy(logits.float(), ordered[:, known:].flatten(), reduction="none")
        table[known, known:] = losses.view(batch, -1).double().sum(0).cpu()
    return table


def _commit(ordered: Int[Tensor, "B L"], positions: Int[Tensor, "B L"], start: int, end: int) -> Commit:
    counts = torch.full((len(ordered),), end - start)
    return Commit(ordered[:, start:end], positions[:, start:end], counts)


def schedule_cost(table: LossTable, sizes: Sequence[int]) -> float:
    """Cost of a schedule, in nats a picture."""
    ends = list(accumulate(sizes))
    assert ends[-1] == len(table), "sizes fill the picture"
    return sum(table[end - size, end - size : end].sum().item() for size, end in zip(sizes, ends))


def excess(table: LossTable, sizes: Sequence[int]) -> float:
    """Excess cost of a schedule above one position a step."""
    return schedule_cost(table, sizes) - table.diagonal().sum().item()


def best_sizes(table: LossTable, most_steps: int) -> dict[int, tuple[int, ...]]:
    """The sizes that cost the least in exactly 1, 2, ... `most_steps` steps, by dynamic programming.

    Raises StepsError for more steps than there are positions.
    """
    length = len(table)
    if not 1 <= most_steps <= length:
        raise StepsError(f"steps is {most_steps}; this image takes 1 to {length}", field="steps")
    # step_cost[start, end] of one step that decodes ranks start..end - 1; a step decodes one position at least.
    step_cost = torch.full((length + 1, length + 1), torch.inf, dtype=torch.float64)
    for start in range(length):
        step_cost[start, start + 1 :] = table[start, start:].cumsum(0)
    least, before = step_cost[0], []
    found: dict[int, tuple[int, ...]] = {1: (length,)}
    for steps in range(2, most_steps + 1):
        least, previous = (least[:, None] + step_cost).min(0)
        before.append(previous)
        found[steps] = _trace(before, length)
    return found


def _trace(before: Sequence[Int[Tensor, "L1"]], length: int) -> tuple[int, ...]:
    """Sizes from where each step's best predecessor ended."""
    ends = [length]
    for previous in reversed(before):
        ends.append(int(previous[ends[-1]]))
    ends.append(0)
    return tuple(end - start for start, end in zip(ends[1:], ends))[::-1]
