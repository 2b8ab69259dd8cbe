"""The decode step: the only code that turns a group of positions into tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from oar_core.models.base import Backbone, Commit, Query
from oar_core.nn.kv_cache import KVCache
from oar_core.order.certainty import entropy, surprise
from oar_core.order.repulsion import surest_apart
from oar_core.order.rules import Asked
from oar_core.sampling.confidence import safe_together
from oar_core.sampling.draw import Draw, Drawn, plain_draw
from oar_core.sampling.guidance import guide
from oar_core.sampling.rows import DecodedGroup, DecodeRow, Slots
from oar_core.sampling.sampler import SamplingRows
from oar_core.sampling.step_batch import Choice, StepBatch

__all__ = ["DecodeRow", "DecodedGroup", "Slots", "StepLoad", "decode_step", "query_logits"]


@dataclass
class StepLoad:
    """Work of a step; a guided picture counts twice."""

    slots: int = 0
    positions: int = 0  # places of queries in attention, pads included
    pads: int = 0  # of these hold no query; everything but attention has no pads at all
    prefilled: int = 0  # tokens of conditions and of pictures that entered the cache without being decoded in it


@torch.inference_mode()
def decode_step(
    backbone: Backbone, cache: KVCache, rows: Sequence[DecodeRow], load: StepLoad | None = None, draw: Draw = plain_draw
) -> list[DecodedGroup]:
    """Decodes one group of each row, which may differ in everything; the results come in the order of `rows`.

    Rows of all kinds go through the backbone together, and what they ask is one list without pads. The host waits for
    the device once. What is asked for is added to `load`.
    """
    if not rows:
        return []
    by_slot = sorted(range(len(rows)), key=lambda index: rows[index].slots.conditional)
    batch = StepBatch.pack([rows[index] for index in by_slot], backbone.spec, cache.keys.device)
    pads = cache.num_pads
    groups = dict(zip(by_slot, _unpack(_decode(backbone, cache, batch, draw).tolist(), batch.limits)))
    if load is not None:
        load.slots += len(batch.slots)
        load.pads += cache.num_pads - pads
        load.positions += sum(batch.counts) + cache.num_pads - pads
    return [groups[index] for index in range(len(rows))]


def _unpack(flat: list[float], limits: Sequence[int]) -> list[DecodedGroup]:
    """Counts of the rows; then positions, token ids and confidences of all that was selected, row after row, and
    surprises where they are there."""
    num_rows, num_selected = len(limits), sum(limits)
    positions, token_ids, confidences, surprises = (flat[num_rows + part * num_selected :] for part in range(4))
    groups: list[DecodedGroup] = []
    for end, limit, count in zip(accumulate(limits), limits, flat):
        kept = slice(end - limit, end - limit + int(count))
        ids = tuple(map(int, positions[kept])), tuple(map(int, token_ids[kept]))
        groups.append(DecodedGroup(*ids, tuple(confidences[kept]), tuple(surprises[kept])))
    return groups


def _decode(backbone: Backbone, cache: KVCache, batch: StepBatch, draw: Draw) -> Float[Tensor, "_"]:
    """Packs results for `_unpack` in fp32, which holds integers up to 2**24 exactly: one copy to the host."""
    commit, queries = batch.commit, batch.queries
    for choice in batch.choices:
        if choice.decider is None:
            commit, queries = _ask_policy(backbone, cache, batch, choice)
    logits = _guided_logits(backbone, cache, batch, commit, queries)
    selected = _select(backbone, batch, logits, queries, draw)
    owners = batch.owners
    if selected is not None:
        logits, queries, owners = logits[selected], queries[selected], owners[selected]
    # A draw is a function of its position: what likelihood drew in order to choose is drawn again here.
    drawn = _draw(draw, logits, queries, owners, batch.params, batch.noise_keys)
    reported = _reported(queries, drawn)
    if batch.has_surprises:
        reported.append(surprise(logits, drawn.token_ids))
    return torch.cat([_group_counts(logits, batch).float(), *reported])


@torch.inference_mode()
def query_logits(
    logits: Float[Tensor, "M V"],
    conditional: Int[Tensor, "Q"],
    unconditional: Int[Tensor, "Q"],
    queries: Int[Tensor, "Q"],
    owners: Int[Tensor, "Q"],
    params: SamplingRows,
    noise_keys: Int[Tensor, "R"],
    draw: Draw = plain_draw,
) -> Float[Tensor, "_"]:
    """A step's draws from the logits of its slots, for a caller that has made these: positions, token ids and
    confidences of all queries, in fp32. Waits for nothing."""
    guided = _guide(logits, conditional, unconditional, params.guidance[owners])
    return torch.cat(_reported(queries, _draw(draw, guided, queries, owners, params, noise_keys)))


def _draw(
    draw: Draw,
    logits: Float[Tensor, "K V"],
    queries: Int[Tensor, "K"],
    owners: Int[Tensor, "K"],
    params: SamplingRows,
    noise_keys: Int[Tensor, "R"],
) -> Drawn:
    return draw(logits, queries, noise_keys[owners], params.of_queries(owners))


def _reported(queries: Int[Tensor, "S"], drawn: Drawn) -> list[Float[Tensor, "S"]]:
    """Positions, token ids and confidences."""
    return [queries.float(), drawn.token_ids.float(), drawn.confidences]


def _ask_policy(
    backbone: Backbone, cache: KVCache, batch: StepBatch, choice: Choice
) -> tuple[Commit, Int[Tensor, "Q"]]:
    """Commits, and has the policy choose what its rows ask for; then there is nothing left to commit.

    Guided or not, it is the conditional picture whose order is chosen.
    """
    nothing = batch.queries[:0]
    backbone.step(cache, batch.slots, batch.commit, Query(nothing, (0,) * len(batch.slots)))
    candidates = choice.candidates.flatten()[choice.listed]
    scores = backbone.score(cache, choice.slots, Query(candidates, choice.counts))
    columns = _pick(_as_table(scores, choice), choice)
    chosen = choice.candidates.gather(1, columns).flatten()[choice.picked]
    return batch.commit.emptied, batch.queries.index_copy(0, choice.targets, chosen)


def _guided_logits(
    backbone: Backbone, cache: KVCache, batch: StepBatch, commit: Commit, queries: Int[Tensor, "Q"]
) -> Float[Tensor, "Q V"]:
    """Logits under guidance, in fp32."""
    asked = Query(queries if batch.spread is None else queries[batch.spread], batch.counts)
    logits = backbone.step(cache, batch.slots, commit, asked).float()
    if batch.conditional is None or batch.unconditional is None:
        return logits
    scales = batch.params.guidance[batch.owners] if batch.scales is None else batch.scales
    return _guide(logits, batch.conditional, batch.unconditional, scales)


def _guide(
    logits: Float[Tensor, "M V"],
    conditional: Int[Tensor, "Q"],
    unconditional: Int[Tensor, "Q"],
    scale: Float[Tensor, "Q"],
) -> Float[Tensor, "Q V"]:
    return guide(logits[conditional][:, None], logits[unconditional][:, None], scale).squeeze(1)


def _select(
    backbone: Backbone, batch: StepBatch, logits: Float[Tensor, "Q V"], queries: Int[Tensor, "Q"], draw: Draw
) -> Int[Tensor, "S"] | None:
    """The queries that groups may hold, row after row in decode order; None where it is all of them."""
    selected = batch.selected
    for choice in batch.choices:
        decider = choice.decider
        if decider is None:
            continue
        asked = queries[choice.queries]
        choice = replace(choice, candidates=_as_table(asked, choice))
        scores = decider.scores(_asked(backbone, batch, choice, logits[choice.queries], asked, draw))
        columns = _pick(scores, choice)
        places = torch.zeros_like(choice.candidates).flatten().index_copy(0, choice.listed, choice.queries)
        chosen = places.view_as(choice.candidates).gather(1, columns).flatten()[choice.picked]
        base = torch.arange(len(queries), device=queries.device) if selected is None else selected
        selected = base.index_copy(0, choice.targets, chosen)
    return selected


def _pick(scores: Float[Tensor, "R G"], choice: Choice) -> Int[Tensor, "R P"]:
    return surest_apart(scores, choice.widths, choice.most, choice.candidates, choice.repulsion)


def _asked(
    backbone: Backbone,
    batch: StepBatch,
    choice: Choice,
    logits: Float[Tensor, "K V"],
    queries: Int[Tensor, "K"],
    draw: Draw,
) -> Asked:
    def drawn() -> Int[Tensor, "K"]:
        return _draw(draw, logits, queries, batch.owners[choice.queries], batch.params, batch.noise_keys).token_ids

    return Asked(
        logits=logits,
        candidates=choice.candidates,
        widths=choice.widths,
        grid=backbone.spec.grid,
        order_score=backbone.order_score,
        as_table=lambda values: _as_table(values, choice),
        draw=drawn,
        options=choice.options,
    )


def _as_table(values: Shaped[Tensor, "K"], choice: Choice) -> Shaped[Tensor, "R G"]:
    table = values.new_zeros(choice.candidates.numel()).index_copy(0, choice.listed, values)
    return table.view_as(choice.candidates)


def _group_counts(logits: Float[Tensor, "S V"], batch: StepBatch) -> Int[Tensor, "R"]:
    """Number of positions that each row decodes. Like the positions, that depends on the context alone."""
    adaptive = batch.adaptive
    if adaptive is None:
        return batch.takes
    entropies = entropy(logits[adaptive.selected])
    # At least `take`, which never exceeds the limit.
    counts = safe_together(entropies, adaptive.bounds).minimum(adaptive.mosts)
    return batch.takes.index_copy(0, adaptive.rows, counts.maximum(batch.takes[adaptive.rows]))
