"""How far one picture has come: what its next step commits and asks, and what it has decoded."""

import math
from dataclasses import dataclass, replace

from oar_core.config import BackboneConfig
from oar_core.errors import RequestError
from oar_core.order.plan import Group, make_plan
from oar_core.sampling.decode import Chooser, DecodedGroup, DecodeRow, Slots
from oar_core.sampling.noise import noise_key
from oar_core.sampling.prefill import PrefillRow
from oar_core.sampling.request import SequenceRequest


@dataclass(frozen=True)
class Patch:
    """One decoded token. `rank` counts from 0 in decode order; `confidence` is the probability that the model gave
    to its likeliest token at this position (after guidance, before temperature and truncation)."""

    rank: int
    position: int
    token_id: int
    confidence: float


class Progress:
    """The state of one picture, apart from its cache entries.

    Invariant: before a step, a slot holds the first of the tokens, and the step commits those up to the start of the
    current group, to each slot that the group asks. The unconditional slot is not asked where guidance is off (before
    its interval, after it): it falls behind, and what it missed is owed when it is asked again. What is owed may be
    paid in chunks, by steps that decode nothing.

    A picture that was interrupted inside a group therefore decodes the rest of it from the context that the whole group
    had, and commits both parts together, as if it had never stopped. Adaptive groups are decided from the cached
    context, so a picture that was interrupted between two steps goes on with the same ones.
    """

    def __init__(self, request: SequenceRequest, config: BackboneConfig, *, has_policy: bool = False) -> None:
        """Raises a RequestError for a request that the model cannot serve."""
        request.check_fits(config, has_policy=has_policy)
        known = request.known
        self.request = request
        self.plan = make_plan(
            request.plan, config.grid, seed=request.seed, image_index=request.image_index, given=known.given
        )
        if self.plan.order is not None and self.plan.order[: known.num_resumed] != known.resumed:
            raise RequestError("known resumes positions that are not the first ones of the plan's order", field="known")
        if self.plan.is_adaptive and known.num_resumed and not known.num_steps:
            raise RequestError("known resumes an adaptive plan and does not say after how many steps", field="known")
        self.positions = list(known.positions)
        self.token_ids = list(known.token_ids)
        self._num_cached = [0, 0]  # of the conditional slot and the unconditional one
        self._num_steps = known.num_steps  # made so far; only adaptive plans cannot tell it from the rank
        self._num_given = known.num_given
        self._unknown = set(range(config.num_tokens)).difference(known.positions)
        self._noise_key = noise_key(request.seed, request.image_index)
        self._num_settled = 0 if self.is_complete else self._context_end  # tokens that are older than the latest step

    @property
    def num_decoded(self) -> int:
        return len(self.positions) - self._num_given

    @property
    def is_complete(self) -> bool:
        return not self._unknown

    @property
    def owed(self) -> int:
        """How many entries the slots lack before the next group can be asked for, those of the latest step aside."""
        if self.is_complete:
            return 0
        return sum(self._num_settled - self._num_cached[part] for part in self._parts)

    def chunk(self, most: float) -> int:
        """How much of that the next step takes in, `most` at most: all of it, or some of one slot."""
        owed = self.owed
        if owed <= most:
            return owed
        return int(min(most, self._num_settled - self._num_cached[self._first_owing]))

    @property
    def _first_owing(self) -> int:
        return next(part for part in self._parts if self._num_cached[part] < self._num_settled)

    @property
    def steps(self) -> int:
        """How many steps the picture takes in all; the current upper bound where groups are adaptive."""
        if not self.plan.is_adaptive:
            return self.plan.steps
        return self._num_steps + min(max(0, self.plan.steps - self._num_steps), len(self._unknown))

    @property
    def step(self) -> int:
        """The step that decodes the current group, counted from 1."""
        return self._group.step + 1

    @property
    def num_steps_left(self) -> int:
        return 0 if self.is_complete else self.steps - self.step + 1

    @property
    def grid_token_ids(self) -> tuple[int, ...]:
        """The tokens known so far, by position."""
        return tuple(token_id for _, token_id in sorted(zip(self.positions, self.token_ids)))

    def prefill_rows(
        self, slots: Slots, unconditional_ids: tuple[int, ...], most: float = math.inf
    ) -> list[PrefillRow]:
        """What the slots start with: the conditions, and of the tokens that are owed the first `most`."""
        rows: list[PrefillRow] = []
        for part, (slot, ids) in enumerate(zip(slots.all, self.request.conditions(unconditional_ids))):
            new = self._pay(part, most)
            most -= new.stop - new.start
            rows.append(PrefillRow(slot, ids, self.positions[new], self.token_ids[new]))
        return rows

    def next_row(self, slots: Slots, most: float = math.inf) -> DecodeRow:
        """What the next step does for this picture: its group, or the first `most` of the tokens that are owed where
        that is not all of them. The row counts as carried out from here on."""
        return self._group_row(slots) if self.owed <= most else self._chunk_row(slots, most)

    def _chunk_row(self, slots: Slots, most: float) -> DecodeRow:
        part = self._first_owing
        new = self._pay(part, most)
        return DecodeRow(
            slots=Slots(slots.all[part]),
            commit_positions=self.positions[new],
            commit_token_ids=self.token_ids[new],
            query=(),
            take=0,
            chooser=Chooser.FIXED,
            sampling=self.request.sampling,
            noise_key=self._noise_key,
        )

    def _pay(self, part: int, most: float) -> slice:
        """The tokens that a slot is to take in: none where it is not asked."""
        start = self._num_cached[part]
        owed = 0 if self.is_complete or part not in self._parts else self._num_settled - start
        self._num_cached[part] = start + int(min(owed, most))
        return slice(start, self._num_cached[part])

    def _group_row(self, slots: Slots) -> DecodeRow:
        parts, end = self._parts, self._context_end
        starts = [self._num_cached[part] for part in parts]
        new = slice(min(starts), end)
        order, take = self.plan.order, self._group.end - self.num_decoded
        chooser = Chooser.FIXED if order is not None else Chooser(self.request.plan.order)
        most = self._most(chooser, take) if self.plan.is_adaptive else take
        start = self.num_decoded
        row = DecodeRow(
            slots=Slots(*(slots.all[part] for part in parts)),
            commit_positions=self.positions[new],
            commit_token_ids=self.token_ids[new],
            query=sorted(self._unknown) if order is None else order[start : start + most],
            take=take,
            chooser=chooser,
            sampling=replace(self.request.sampling, guidance=self._scale),
            noise_key=self._noise_key,
            most=most,
            entropy_bound=self.plan.entropy_bound,
            candidates=self.request.plan.candidates,
            held=tuple(cached - new.start for cached in starts),
            done=start - self._group.start,
        )
        for part in parts:
            self._num_cached[part] = end
        self._num_settled = end
        return row

    @property
    def _scale(self) -> float:
        """The guidance of the current group."""
        return self.request.sampling.scale_at(self._group.start / self.plan.length)

    @property
    def _parts(self) -> tuple[int, ...]:
        """The slots that the current group asks."""
        return (0,) if self._scale == 1 else (0, 1)

    def _most(self, chooser: Chooser, take: int) -> int:
        """How many positions an adaptive step may decode: all, where the model is asked about all of them anyway."""
        asks_for_all = chooser in {Chooser.CONFIDENCE, Chooser.LIKELIHOOD}
        wanted = len(self._unknown) if asks_for_all else self.plan.lookahead
        return max(take, min(wanted, len(self._unknown)))

    def accept(self, group: DecodedGroup) -> tuple[Patch, ...]:
        """Records what the step of `next_row` decoded: nothing, where that was a chunk."""
        if not group.positions:
            return ()
        first_rank = self.num_decoded
        self.positions += group.positions
        self.token_ids += group.token_ids
        self._unknown.difference_update(group.positions)
        self._num_steps += 1
        decoded = zip(group.positions, group.token_ids, group.confidences)
        return tuple(Patch(first_rank + offset, *patch) for offset, patch in enumerate(decoded))

    @property
    def _group(self) -> Group:
        """The current group; an adaptive one starts with this step and ends here at the earliest."""
        if not self.plan.is_adaptive:
            return self.plan.group_of(self.num_decoded)
        end = self.plan.group_ends[min(self._num_steps, self.plan.steps - 1)]
        return Group(self._num_steps, self.num_decoded, max(end, self.num_decoded + 1))

    @property
    def _context_end(self) -> int:
        return self._num_given + self._group.start
