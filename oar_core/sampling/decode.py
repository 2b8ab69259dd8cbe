"""The decode step: the only code that turns a group of positions into tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.models.backbone import Backbone, Commit, right_padded
from oar_core.nn.kv_cache import KVCache
from oar_core.sampling.confidence import entropy, log_odds_of_best, log_probability, safe_together, surest
from oar_core.sampling.guidance import guide
from oar_core.sampling.noise import gumbel
from oar_core.sampling.order_score import score_positions
from oar_core.sampling.sampler import SamplingParams, SamplingRows, sample


class Chooser(Enum):
    """Who picks the positions of a group out of a row's query, which lists them in ascending order unless FIXED."""

    FIXED = "fixed"  # all of the query, as listed
    CONFIDENCE = "confidence"  # the positions of which the model is surest
    LIKELIHOOD = "likelihood"  # the positions whose drawn token is likeliest: a biased sampler
    DISTILLED = "distilled"  # the positions that the order policy puts first; only they are asked for their tokens


@dataclass(frozen=True)
class Slots:
    """The cache slots of one picture; the second one only under guidance."""

    conditional: int
    unconditional: int | None = None

    @property
    def all(self) -> tuple[int, ...]:
        return (self.conditional,) if self.unconditional is None else (self.conditional, self.unconditional)


@dataclass(frozen=True)
class DecodeRow:
    """What one picture does in this step: commit tokens to its slots, then decode `take` of the queried positions, or,
    under an entropy bound, as many from `take` to `most` as are safe together."""

    slots: Slots
    commit_positions: Sequence[int]
    commit_token_ids: Sequence[int]
    query: Sequence[int]
    take: int
    chooser: Chooser
    sampling: SamplingParams
    noise_key: int
    most: int | None = None  # None: `take`
    entropy_bound: float | None = None  # nats


@dataclass(frozen=True)
class DecodedGroup:
    """Tokens of one picture in decode order. See `oar_core.sampling.progress.Patch` for what a confidence is."""

    positions: tuple[int, ...]
    token_ids: tuple[int, ...]
    confidences: tuple[float, ...]


@dataclass
class StepLoad:
    """What a step asks of the backbone. A call's rows are padded to its widest query; a guided picture has two."""

    slots: int = 0
    positions: int = 0  # that are queried, pads included
    pads: int = 0

    def add(self, rows: Sequence[DecodeRow]) -> None:
        """The rows of one call."""
        width = max(len(row.query) for row in rows)
        for row in rows:
            count = len(row.slots.all)
            self.slots += count
            self.positions += count * width
            self.pads += count * (width - len(row.query))


@torch.inference_mode()
def decode_step(
    backbone: Backbone, cache: KVCache, rows: Sequence[DecodeRow], load: StepLoad | None = None
) -> list[DecodedGroup]:
    """Decodes one group of each row, which may differ in everything; the results come in the order of `rows`.

    Rows with a fixed group are narrow, rows that choose ask for every remaining position: each chooser's rows go to the
    backbone in a call of their own, so that neither pads the other. The host waits for the device once. What is asked
    for is added to `load`.
    """
    calls = _calls(rows)
    if load is not None:
        for call in calls:
            load.add([rows[index] for index in call])
    outputs = [_decode_call(backbone, cache, [rows[index] for index in call]) for call in calls]
    flat: list[float] = torch.cat([output.flatten() for output in outputs]).tolist() if outputs else []
    groups: dict[int, DecodedGroup] = {}
    start = 0
    for call, output in zip(calls, outputs):
        width = output.shape[2]
        for index in call:
            groups[index] = _unpack(flat[start : start + 4 * width], width)
            start += 4 * width
    return [groups[index] for index in range(len(rows))]


def _calls(rows: Sequence[DecodeRow]) -> list[list[int]]:
    """Row indices of each backbone call, by ascending slot: a run of neighbouring slots is read without a copy."""
    by_slot = sorted(range(len(rows)), key=lambda index: rows[index].slots.conditional)
    calls: dict[tuple[Chooser, bool], list[int]] = {}
    for index in by_slot:
        calls.setdefault((rows[index].chooser, rows[index].entropy_bound is not None), []).append(index)
    return list(calls.values())


def _unpack(flat: list[float], width: int) -> DecodedGroup:
    count = int(flat[0])
    positions, token_ids, confidences = (flat[part * width : part * width + count] for part in range(1, 4))
    return DecodedGroup(tuple(map(int, positions)), tuple(map(int, token_ids)), tuple(confidences))


def _decode_call(backbone: Backbone, cache: KVCache, rows: list[DecodeRow]) -> Float[Tensor, "R 4 A"]:
    """How many columns of a row count, repeated; then its positions, token ids and confidences.

    All in fp32, which holds integers up to 2**24 exactly, so that one copy brings them to the host.
    """
    batch = _Batch.pack(rows, backbone.config.vocab_size, cache.keys.device)
    logits, query = _chosen(backbone, cache, batch)
    # A draw is a function of its position: what likelihood drew in order to choose is drawn again here.
    token_ids = _draw(logits, query, batch)
    counts = _group_counts(logits, batch)[:, None].expand_as(query)
    return torch.stack([counts.float(), query.float(), token_ids.float(), log_odds_of_best(logits).sigmoid()], dim=1)


def _group_counts(logits: Float[Tensor, "R A V"], batch: "_Batch") -> Int[Tensor, "R"]:
    """How many positions each row decodes. Like the positions, that depends on the context alone."""
    if batch.bounds is None:
        return batch.takes
    # At least `take`, which never exceeds `most`.
    return safe_together(entropy(logits), batch.bounds).minimum(batch.mosts).maximum(batch.takes)


def _chosen(backbone: Backbone, cache: KVCache, batch: "_Batch") -> tuple[Float[Tensor, "R A V"], Int[Tensor, "R A"]]:
    """fp32 logits after guidance at the positions of each row's group, and these positions, in decode order."""
    if batch.chooser is Chooser.DISTILLED:
        # Guided or not, it is the conditional picture whose order is chosen.
        nothing = batch.query[batch.owners, :0]
        backbone.step(cache, batch.slots, batch.commit, nothing)
        scores = backbone.score(cache, batch.conditional_slots, batch.query)
        query = batch.query.gather(1, surest(scores, batch.widths, batch.most))
        committed = Commit(nothing, nothing, torch.zeros_like(batch.commit.counts))
        return _guided_logits(backbone, cache, batch, committed, query), query
    query = batch.query
    logits = _guided_logits(backbone, cache, batch, batch.commit, query)
    if batch.chooser is Chooser.FIXED:
        return logits, query
    if batch.chooser is Chooser.LIKELIHOOD:
        scores = log_probability(logits, _draw(logits, query, batch))
    else:
        scores = score_positions(logits, query, batch.widths, backbone.config.grid, backbone.order_score)
    columns = surest(scores, batch.widths, batch.most)
    return logits.take_along_dim(columns[..., None], dim=1), query.gather(1, columns)


def _draw(logits: Float[Tensor, "R G V"], query: Int[Tensor, "R G"], batch: "_Batch") -> Int[Tensor, "R G"]:
    return sample(logits, batch.params, gumbel(batch.noise_keys, query, logits.shape[-1]))


def _guided_logits(
    backbone: Backbone, cache: KVCache, batch: "_Batch", commit: Commit, query: Int[Tensor, "R G"]
) -> Float[Tensor, "R G V"]:
    if batch.conditional is None or batch.unconditional is None:
        return backbone.step(cache, batch.slots, commit, query).float()
    logits = backbone.step(cache, batch.slots, commit, query[batch.owners]).float()
    return guide(logits[batch.conditional], logits[batch.unconditional], batch.params.guidance)


@dataclass(frozen=True)
class _Batch:
    """The rows of one call as tensors, moved as few tables; slots and counts stay on the host, where the cache keeps
    lengths. Slots ascend; `owners` are their rows. Rows without guidance have one slot each, in their own order."""

    chooser: Chooser
    most: int  # positions that a group may hold
    params: SamplingRows
    noise_keys: Int[Tensor, "R"]
    widths: Int[Tensor, "R"]  # of the query
    takes: Int[Tensor, "R"]
    mosts: Int[Tensor, "R"]
    bounds: Float[Tensor, "R"] | None  # None where groups are not adaptive
    query: Int[Tensor, "R G"]
    conditional_slots: Int[Tensor, "R"]
    slots: Int[Tensor, "B"]
    owners: Int[Tensor, "B"]
    commit: Commit
    # Where each row's logits are among those of the slots; None where no row is guided.
    conditional: Int[Tensor, "R"] | None
    unconditional: Int[Tensor, "R"] | None

    @classmethod
    def pack(cls, rows: list[DecodeRow], vocab_size: int, device: torch.device) -> "_Batch":
        by_slot = sorted((slot, row) for row, entry in enumerate(rows) for slot in entry.slots.all)
        place = {slot: index for index, (slot, _) in enumerate(by_slot)}
        owners = torch.tensor([row for _, row in by_slot])
        counts = torch.tensor([len(row.commit_positions) for row in rows])[owners]
        # A row without guidance stands in for its own pair, which leaves its logits bit for bit.
        most = [row.take if row.most is None else row.most for row in rows]
        bounds = [row.entropy_bound for row in rows if row.entropy_bound is not None]
        facts = [
            [row.noise_key, len(row.query), row.take, most[r], place[row.slots.all[0]], place[row.slots.all[-1]]]
            for r, row in enumerate(rows)
        ]
        facts, positions, token_ids, query = _moved(
            [
                torch.tensor(facts),
                right_padded([row.commit_positions for row in rows]),
                right_padded([row.commit_token_ids for row in rows]),
                right_padded([row.query for row in rows]),
            ],
            device,
        )
        noise_keys, widths, takes, mosts, conditional, unconditional = facts.unbind(1)
        is_guided = len(by_slot) > len(rows)
        on_device = owners.to(device)
        return cls(
            chooser=rows[0].chooser,
            most=max(most),
            params=SamplingRows.stack([row.sampling for row in rows], vocab_size, device),
            noise_keys=noise_keys,
            widths=widths,
            takes=takes,
            mosts=mosts,
            bounds=torch.tensor(bounds, dtype=torch.float32).to(device) if bounds else None,
            query=query,
            conditional_slots=torch.tensor([row.slots.conditional for row in rows]),
            slots=torch.tensor([slot for slot, _ in by_slot]),
            owners=on_device,
            commit=Commit(token_ids[on_device], positions[on_device], counts),
            conditional=conditional if is_guided else None,
            unconditional=unconditional if is_guided else None,
        )


def _moved(tables: list[Int[Tensor, "R _"]], device: torch.device) -> tuple[Int[Tensor, "R _"], ...]:
    """The tables on the device, moved as one."""
    return torch.cat(tables, dim=1).to(device).split([table.shape[1] for table in tables], dim=1)
