"""The rows of one step as tensors.

Whatever rows ask for is laid end to end, in lists without pads: the queries of pictures, those of all their slots, and
what is selected of them. Tables with a row for each picture exist only where positions are compared with each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.models.base import BackboneSpec, Commit
from oar_core.nn.tables import moved, places_within, right_padded, starts_of
from oar_core.order.repulsion import Repulsion
from oar_core.order.rules import Decider
from oar_core.sampling.rows import DecodeRow
from oar_core.sampling.sampler import SamplingRows
from oar_wire.options import OPTIONS


@dataclass(frozen=True)
class Choice:
    """The rows that one decider serves: each picks some of its candidates. Those of the order policy (no decider) are
    all of a row's query, and become what the row asks; those of a decider are what it asks, and become its group."""

    decider: Decider | None
    slots: Int[Tensor, "R"]  # conditional ones, on the host
    counts: tuple[int, ...]  # of candidates, on the host
    widths: Int[Tensor, "R"]  # the same, on the device
    candidates: Int[
        Tensor, "R G"
    ]  # positions, right-padded; where the policy proposes, a decider's are known once they are asked
    listed: Int[Tensor, "K"]  # the places of candidates in this table that are no pads, row after row
    queries: Int[Tensor, "K"]  # their places in the list of queries; of the policy's, which asks nothing yet, the first
    most: int  # that any row picks
    picked: Int[Tensor, "P"]  # the places of picks in a table (R, most), row after row
    targets: Int[Tensor, "P"]  # where they go: in the list of queries for the policy, else in that of the selected
    repulsion: Repulsion | None  # None: no row wants any
    options: Mapping[str, Float[Tensor, "R"]]  # that the decider reads, by name


@dataclass(frozen=True)
class Adaptive:
    """The rows that decide how many of their selected positions are decoded."""

    rows: Int[Tensor, "A"]
    selected: Int[Tensor, "A S"]  # their places in the list of the selected, right-padded
    bounds: Float[Tensor, "A"]  # nats
    mosts: Int[Tensor, "A"]


@dataclass(frozen=True)
class StepBatch:
    """All of it. Slots ascend, and rows by their first slot. A list index is None where it would be the list itself."""

    slots: Int[Tensor, "B"]  # on the host
    counts: tuple[int, ...]  # queries of each slot, on the host
    commit: Commit
    queries: Int[Tensor, "Q"]  # positions; where the policy chooses, those that come first in the row
    owners: Int[Tensor, "Q"]  # the row of each query
    spread: Int[Tensor, "M"] | None  # the query that each slot's asks
    conditional: Int[Tensor, "Q"] | None  # of each query, its places among the slots': None where no row is guided
    unconditional: Int[Tensor, "Q"] | None
    params: SamplingRows
    scales: Float[Tensor, "Q"] | None  # the guidance of each query; None: that of its row
    noise_keys: Int[Tensor, "R"]
    takes: Int[Tensor, "R"]
    limits: tuple[int, ...]  # of the rows' groups, on the host
    selected: Int[Tensor, "S"] | None  # queries that a group may hold; None where it is all of them
    choices: tuple[Choice, ...]
    adaptive: Adaptive | None
    has_surprises: bool  # whether any row is to be told of them

    @classmethod
    def pack(cls, rows: Sequence[DecodeRow], spec: BackboneSpec, device: torch.device) -> Self:
        """`rows` ascend by their first slot."""
        by_slot = sorted(
            (slot, row, part) for row, entry in enumerate(rows) for part, slot in enumerate(entry.slots.all)
        )
        owner_of_slot = np.array([row for _, row, _ in by_slot])
        asked, limits = np.array([row.num_asked for row in rows]), np.array([row.limit for row in rows])
        slot_counts, starts = asked[owner_of_slot], starts_of(asked)
        place = {(row, part): start for (_, row, part), start in zip(by_slot, starts_of(slot_counts).tolist())}
        # A row without guidance stands in for its own pair, which leaves its logits bit for bit.
        pairs = np.array([[place[r, 0], place[r, len(row.slots.all) - 1]] for r, row in enumerate(rows)])
        commits = [(row, rows[row].held[part]) for _, row, part in by_slot]
        tables = {
            "commit_positions": right_padded([rows[row].commit_positions[held:] for row, held in commits]),
            "commit_token_ids": right_padded([rows[row].commit_token_ids[held:] for row, held in commits]),
            "queries": np.concatenate([np.asarray(row.query[: row.num_asked], dtype=np.int64) for row in rows]),
            "owners": np.repeat(np.arange(len(rows)), asked),
            "spread": places_within(starts[owner_of_slot], slot_counts),
            "conditional": places_within(pairs[:, 0], asked),
            "unconditional": places_within(pairs[:, 1], asked),
            "noise_keys": np.array([row.noise_key for row in rows]),
            "takes": np.array([row.take for row in rows]),
            "selected": places_within(starts, limits),
        }
        at = dict(zip(tables, moved(list(tables.values()), device)))
        is_guided = len(by_slot) > len(rows)
        return cls(
            slots=torch.tensor([slot for slot, _, _ in by_slot]),
            counts=tuple(slot_counts.tolist()),
            commit=Commit(
                at["commit_token_ids"],
                at["commit_positions"],
                torch.tensor([len(rows[row].commit_positions) - held for row, held in commits]),
                _seen(commits, rows),
            ),
            queries=at["queries"],
            owners=at["owners"],
            spread=at["spread"] if is_guided else None,
            conditional=at["conditional"] if is_guided else None,
            unconditional=at["unconditional"] if is_guided else None,
            params=SamplingRows.stack([row.sampling for row in rows], spec.vocab_size, device),
            scales=_scales(rows, device),
            noise_keys=at["noise_keys"],
            takes=at["takes"],
            limits=tuple(limits.tolist()),
            selected=None if (asked == limits).all() else at["selected"],
            choices=tuple(_choices(rows, starts, starts_of(limits), spec.grid[1], device)),
            adaptive=_adaptive(rows, limits, device),
            has_surprises=any(row.has_surprises for row in rows),
        )


def _choices(
    rows: Sequence[DecodeRow],
    query_starts: Int[np.ndarray, "R"],
    group_starts: Int[np.ndarray, "R"],
    width: int,
    device: torch.device,
) -> list[Choice]:
    choices: list[Choice] = []
    # The policy first: it says what is asked, and deciders choose of that.
    served: dict[Decider | None, list[int]] = {None: [index for index, row in enumerate(rows) if row.rule.uses_policy]}
    for index, row in enumerate(rows):
        if row.rule.decider is not None:
            served.setdefault(row.rule.decider, []).append(index)
    for decider, chosen in served.items():
        if chosen:
            own = [rows[index] for index in chosen]
            targets = query_starts if decider is None else group_starts
            repulsion = _repulsion(decider, own, width, device)
            choices.append(_choice(decider, own, query_starts[chosen], targets[chosen], repulsion, device))
    return choices


def _choice(
    decider: Decider | None,
    rows: Sequence[DecodeRow],
    queries: Int[np.ndarray, "R"],
    targets: Int[np.ndarray, "R"],
    repulsion: Repulsion | None,
    device: torch.device,
) -> Choice:
    """`queries` and `targets` are where each row's begin."""
    if decider is None:
        candidates, picks = [row.query for row in rows], [row.num_asked for row in rows]
    else:
        candidates, picks = [row.query[: row.num_asked] for row in rows], [row.limit for row in rows]
    counts, order, most = np.array([len(row) for row in candidates]), np.arange(len(rows)), max(picks)
    tables = [
        counts,
        right_padded(candidates),
        places_within(order * counts.max(), counts),
        places_within(queries, counts),
        places_within(order * most, np.array(picks)),
        places_within(targets, np.array(picks)),
    ]
    widths, table, listed, asked, picked, goals = moved(tables, device)
    slots = torch.tensor([row.slots.conditional for row in rows])
    listed_counts, options = tuple(counts.tolist()), _options(rows, device)
    return Choice(decider, slots, listed_counts, widths, table, listed, asked, most, picked, goals, repulsion, options)


def _options(rows: Sequence[DecodeRow], device: torch.device) -> dict[str, Float[Tensor, "R"]]:
    """A row that says nothing of an option, as its rule reads none, has the usual value."""
    names = sorted({name for row in rows for name in row.rule.options})
    tables = {name: [row.of_rule.get(name, OPTIONS[name].default) for row in rows] for name in names}
    return {name: torch.tensor(values, dtype=torch.float32).to(device) for name, values in tables.items()}


def _repulsion(
    decider: Decider | None, rows: Sequence[DecodeRow], width: int, device: torch.device
) -> Repulsion | None:
    """Keeps the positions of a group apart. What a policy proposes to a decider is no group yet, and may lie close."""
    distances = [row.repulsion if row.rule.decider is decider and row.limit + len(row.begun) > 1 else 1 for row in rows]
    if max(distances) == 1:
        return None
    begun = [row.begun for row in rows]
    tables = [np.array(distances), right_padded(begun), np.array([len(row) for row in begun])]
    distance, positions, counts = moved(tables, device)
    return Repulsion(distance, positions, counts, width)


def _scales(rows: Sequence[DecodeRow], device: torch.device) -> Float[Tensor, "Q"] | None:
    """Guidance scales, where any row's positions differ in them."""
    if all(row.scales is None for row in rows):
        return None
    scales = [row.scales or (row.sampling.guidance,) * row.num_asked for row in rows]
    return torch.tensor([scale for listed in scales for scale in listed], dtype=torch.float32).to(device)


def _seen(commits: Sequence[tuple[int, int]], rows: Sequence[DecodeRow]) -> Int[Tensor, "B K"] | None:
    """For each slot's new commits, the number of tokens that each token sees; on the host."""
    tables = [(rows[row].commit_seen, held) for row, held in commits]
    listed = [[count - held for count in seen[held:]] for seen, held in tables if seen is not None]
    return torch.from_numpy(right_padded(listed)) if listed else None


def _adaptive(rows: Sequence[DecodeRow], limits: Int[np.ndarray, "R"], device: torch.device) -> Adaptive | None:
    chosen = [index for index, row in enumerate(rows) if row.entropy_bound is not None]
    if not chosen:
        return None
    starts = starts_of(limits)
    places = [range(starts[index], starts[index] + limits[index]) for index in chosen]
    indices, selected, mosts = moved([np.array(chosen), right_padded(places), limits[chosen]], device)
    bounds = torch.tensor([rows[index].entropy_bound for index in chosen], dtype=torch.float32).to(device)
    return Adaptive(indices, selected, bounds, mosts)
