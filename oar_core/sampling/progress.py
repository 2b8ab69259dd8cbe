"""How far one picture has come: what its next step commits and asks, and what it has decoded."""

from dataclasses import dataclass

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

    Invariant: before a step, the cache holds the first `num_cached` tokens; the step commits those up to the start of
    the current group. A picture that was interrupted inside a group therefore decodes the rest of it from the context
    that the whole group had, and commits both parts together, as if it had never stopped. Adaptive groups are decided
    from the cached context, so a picture that was interrupted between two steps goes on with the same ones.
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
        self.num_cached = 0
        self._num_steps = known.num_steps  # made so far; only adaptive plans cannot tell it from the rank
        self._num_given = known.num_given
        self._unknown = set(range(config.num_tokens)).difference(known.positions)
        self._noise_key = noise_key(request.seed, request.image_index)

    @property
    def num_decoded(self) -> int:
        return len(self.positions) - self._num_given

    @property
    def is_complete(self) -> bool:
        return not self._unknown

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

    def prefill_rows(self, slots: Slots, unconditional_ids: tuple[int, ...]) -> list[PrefillRow]:
        """What the slots start with: the conditions and the tokens that the current group has for context."""
        self.num_cached = len(self.positions) if self.is_complete else self._context_end
        positions, token_ids = self.positions[: self.num_cached], self.token_ids[: self.num_cached]
        conditions = (self.request.condition_ids, unconditional_ids)
        return [PrefillRow(slot, ids, positions, token_ids) for slot, ids in zip(slots.all, conditions)]

    def next_row(self, slots: Slots) -> DecodeRow:
        """What the next step does for this picture."""
        new = slice(self.num_cached, self._context_end)
        order, take = self.plan.order, self._group.end - self.num_decoded
        chooser = Chooser.FIXED if order is not None else Chooser(self.request.plan.order)
        most = self._most(chooser, take) if self.plan.is_adaptive else take
        start = self.num_decoded
        return DecodeRow(
            slots=slots,
            commit_positions=self.positions[new],
            commit_token_ids=self.token_ids[new],
            query=sorted(self._unknown) if order is None else order[start : start + most],
            take=take,
            chooser=chooser,
            sampling=self.request.sampling,
            noise_key=self._noise_key,
            most=most,
            entropy_bound=self.plan.entropy_bound,
        )

    def _most(self, chooser: Chooser, take: int) -> int:
        """How many positions an adaptive step may decode: all, where the model is asked about all of them anyway."""
        asks_for_all = chooser in {Chooser.CONFIDENCE, Chooser.LIKELIHOOD}
        wanted = len(self._unknown) if asks_for_all else self.plan.lookahead
        return max(take, min(wanted, len(self._unknown)))

    def accept(self, group: DecodedGroup) -> tuple[Patch, ...]:
        """Records what the step of `next_row` decoded."""
        first_rank = self.num_decoded
        self.num_cached = self._context_end
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
