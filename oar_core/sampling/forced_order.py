"""The orders in which given pictures would be written: each position that is chosen gets its true token."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.errors import OrderError
from oar_core.models.base import Backbone, Commit, Condition, Query
from oar_core.nn.kv_cache import KVCache
from oar_core.order.plan import DEFAULT_CANDIDATES, PROMPTED, PlanSpec, make_plan
from oar_core.order.rules import RULES, Asked, Decider, OrderRule
from oar_wire.options import OPTIONS

NOTHING_SAID: Mapping[str, float] = MappingProxyType({})
# Commits, then says how much each of the positions that remain is wanted next.
Scorer = Callable[[KVCache, Commit, Query], Float[Tensor, "B G"]]


@torch.inference_mode()
def forced_orders(
    backbone: Backbone, condition: Condition, token_ids: Int[Tensor, "B L"], scorer: Scorer, *, per_step: int = 1
) -> Int[Tensor, "B L"]:
    """The order of each picture, whose tokens are in grid order, under one cache and L / per_step calls."""
    batch, length = token_ids.shape
    cache = backbone.new_cache(batch)
    chosen = token_ids[:, :0]
    backbone.prefill(cache, torch.arange(batch), condition, _commit(token_ids, chosen))
    remaining = torch.arange(length, device=token_ids.device).expand(batch, -1)
    parts: list[Tensor] = []
    while remaining.shape[1]:
        scores = scorer(cache, _commit(token_ids, chosen), Query.grid(remaining))
        columns = scores.argsort(dim=-1, descending=True, stable=True)[:, :per_step]
        chosen = remaining.gather(1, columns)
        parts.append(chosen)
        left = torch.ones_like(remaining, dtype=torch.bool).scatter_(1, columns, False)
        remaining = remaining[left].view(batch, -1)
    return torch.cat(parts, dim=1)


def _commit(token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B K"]) -> Commit:
    counts = torch.full((len(positions),), positions.shape[1])
    return Commit(token_ids.gather(1, positions), positions, counts)


def by_decider(decider: Decider, backbone: Backbone, options: Mapping[str, float]) -> Scorer:
    """A decider's score of every position. `options` are those that it reads, by name."""

    def score(cache: KVCache, commit: Commit, asked: Query) -> Float[Tensor, "B G"]:
        slots = torch.arange(len(asked.counts))
        logits = backbone.step(cache, slots, commit, asked).float()
        shape = len(slots), asked.counts[0]
        return decider.scores(
            Asked(
                logits=logits,
                candidates=asked.positions.view(shape),
                widths=torch.full((len(slots),), shape[1], device=logits.device),
                grid=backbone.spec.grid,
                order_score=backbone.order_score,
                as_table=lambda values: values.view(shape),
                draw=_no_draw,
                options={name: logits.new_full((len(slots),), value) for name, value in options.items()},
            )
        )

    return score


def _no_draw() -> Int[Tensor, "K"]:
    raise AssertionError("a given picture is not drawn")


def by_policy(backbone: Backbone) -> Scorer:
    """The order `distilled`: the backbone's policy."""

    def score(cache: KVCache, commit: Commit, asked: Query) -> Float[Tensor, "B G"]:
        slots = torch.arange(len(asked.counts))
        backbone.step(cache, slots, commit, Query(asked.positions[:0], (0,) * len(slots)))
        return backbone.score(cache, slots, asked).unflatten(0, (len(slots), -1))

    return score


def by_rule(
    rule: OrderRule,
    backbone: Backbone,
    candidates: int = DEFAULT_CANDIDATES,
    of_rule: Mapping[str, float] = NOTHING_SAID,
) -> Scorer:
    """Scores the remaining positions by a rule, one a step; `of_rule` is as a plan's. Raises OrderError for a rule
    that looks at draws."""
    if rule.decider is None:
        return by_policy(backbone)
    if rule.decider.looks_at_draws:
        raise OrderError(f"order {rule.name} looks at draws, and a given picture has none", field="order")
    options = {name: of_rule.get(name, OPTIONS[name].default) for name in rule.options}
    decide = by_decider(rule.decider, backbone, options)
    if not rule.uses_policy:
        return decide
    propose = by_policy(backbone)

    def score(cache: KVCache, commit: Commit, asked: Query) -> Float[Tensor, "B G"]:
        """The decider's score of the positions that the policy puts first."""
        proposed = propose(cache, commit, asked)
        least = proposed.topk(rule.num_asked(proposed.shape[1], 1, 0, candidates), dim=1).values[:, -1:]
        return decide(cache, commit.emptied, asked).masked_fill(proposed < least, -math.inf)

    return score


def orders_by_name(
    backbone: Backbone,
    name: str,
    condition: Condition,
    token_ids: Int[Tensor, "B L"],
    *,
    seed: int,
    first: int = 0,
    candidates: int = DEFAULT_CANDIDATES,
) -> Int[Tensor, "B L"]:
    """The orders in which pictures number `first` and following would be written under an order of this name.

    Raises OrderError for an order that looks at draws, which are given here.
    """
    rule = RULES.get(name)
    if rule is not None:
        return forced_orders(backbone, condition, token_ids, by_rule(rule, backbone, candidates))
    if name == PROMPTED and backbone.order_tree is not None:
        rows = zip(condition.ids.tolist(), condition.lengths.tolist())
        orders = [backbone.order_tree.order(ids[:length]) for ids, length in rows]
        return torch.tensor(orders, device=token_ids.device)
    plans = [
        make_plan(PlanSpec(order=name), backbone.spec.grid, seed=seed, image_index=first + index)
        for index in range(len(token_ids))
    ]
    return torch.tensor([plan.order for plan in plans], device=token_ids.device)
