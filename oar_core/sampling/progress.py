"""How far one picture has come: what its next step commits and asks, and what it has decoded."""

import math
from dataclasses import dataclass, replace

from oar_core.errors import RequestError
from oar_core.models.base import BackboneSpec, GuidanceShare, Prefix
from oar_core.order.plan import Group, make_plan
from oar_core.order.rules import FIXED, RULES, OrderRule
from oar_core.sampling.decode import DecodedGroup, DecodeRow, Slots
from oar_core.sampling.noise import noise_key, revision_key
from oar_core.sampling.prefill import PrefillRow
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.revision import DIGITS, DecodedTokens, num_revised, num_revision_steps, revision_request
from oar_core.sampling.sampler import SamplingParams


@dataclass(frozen=True)
class Patch:
    """One decoded token. `rank` counts from 0 in decode order; `confidence` is the probability that the model gave
    to its likeliest token at this position (after guidance, before temperature and truncation); `surprise` is by how
    many nats the token that was drawn is less likely there than draws are on average, of pictures that are to be
    revised."""

    rank: int
    position: int
    token_id: int
    confidence: float
    surprise: float | None = None


class Progress:
    """The state of one picture, apart from its cache entries.

    Invariant: before a step, a slot holds the first of the tokens, and the step commits those up to the start of the
    current group, to each slot that the group asks. The unconditional slot is not asked where guidance is off (before
    its interval, after it): it falls behind, and what it missed is owed when it is asked again. What is owed may be
    paid in chunks, by steps that decode nothing.

    A picture that was interrupted inside a group therefore decodes the rest of it from the context that the whole group
    had, and commits both parts together, as if it had never stopped. Adaptive groups are decided from the cached
    context, so a picture that was interrupted between two steps goes on with the same ones.

    Where groups are not free (`BackboneSpec.has_free_groups` is false), a picture is interrupted between two of them
    alone. Where commits are not either, what enters the cache keeps its groups: the given tokens are one, those that
    are resumed are those of the plan, and no chunk divides one.

    A picture that is to be revised is made by two plans, one after the other: `begin_revision` puts the second in the
    place of the first, and its slots have to be prefilled again.
    """

    def __init__(self, request: SequenceRequest, spec: BackboneSpec, *, has_policy: bool = False) -> None:
        """Raises a RequestError for a request that the model cannot serve."""
        request.check_fits(spec, has_policy=has_policy)
        self._spec = spec
        self._lay_out(request)
        if self.is_complete:
            self.begin_revision()

    def _lay_out(self, request: SequenceRequest) -> None:
        known, spec = request.known, self._spec
        if spec.fixed_sizes is not None:
            plan = replace(request.plan, group_sizes=spec.fixed_sizes, steps=len(spec.fixed_sizes))
            request = replace(request, plan=plan)
        self.request = request
        self.needs_prefill = True  # whether its slots hold nothing of it yet
        self.plan = make_plan(
            request.plan,
            spec.grid,
            seed=request.seed,
            image_index=request.image_index,
            given=known.given,
            published=spec.published_groups,
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
        self._unknown = set(range(spec.num_tokens)).difference(known.positions)
        self._spec = spec
        self._group_ends = self._known_group_ends()
        self._surprises = list(known.surprises)
        make_key = revision_key if self.is_revising else noise_key
        self._noise_key = make_key(request.seed, request.image_index)
        self._num_settled = 0 if self.is_complete else self._context_end  # tokens that are older than the latest step

    @property
    def is_revising(self) -> bool:
        """Whether the second plan is in place."""
        return self.request.num_kept is not None

    def begin_revision(self) -> bool:
        """Drops tokens of the whole picture that are to be drawn again. False where there are none: it is finished."""
        if self.is_revising or not num_revised(self.request.plan.revise, self.num_decoded):
            return False
        start = self._num_given
        decoded = DecodedTokens(self.positions[start:], self.token_ids[start:], self._surprises)
        self._lay_out(revision_request(self.request, decoded, self._spec.num_tokens))
        return True

    @property
    def num_decoded(self) -> int:
        return len(self.positions) - self._num_given

    @property
    def is_complete(self) -> bool:
        return not self._unknown

    @property
    def unknown(self) -> tuple[int, ...]:
        """Positions without a token, ascending."""
        return tuple(sorted(self._unknown))

    @property
    def owed(self) -> int:
        """How many entries the slots lack before the next group can be asked for, those of the latest step aside."""
        if self.is_complete:
            return 0
        return sum(self._num_settled - self._num_cached[part] for part in self._parts)

    def chunk(self, most: float) -> int:
        """How much of that the next step takes in, `most` at most: all of it, or some of one slot."""
        owed = self.owed
        return owed if owed <= most else self._fitting(self._first_owing, most)

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
        """Of both plans."""
        left = 0 if self.is_complete else self.steps - self.step + 1
        return left if self.is_revising else left + num_revision_steps(self.request.plan.revise, self.plan.length)

    @property
    def grid_token_ids(self) -> tuple[int, ...]:
        """The tokens known so far, by position."""
        return tuple(token_id for _, token_id in sorted(zip(self.positions, self.token_ids)))

    def conditions(self, unconditional_ids: tuple[int, ...]) -> tuple[Prefix, Prefix]:
        """What its slots start with: the picture's condition, and what guidance steers away from."""
        return self.request.conditions(unconditional_ids, self._spec)

    def prefill_rows(
        self, slots: Slots, unconditional_ids: tuple[int, ...], most: float = math.inf
    ) -> list[PrefillRow]:
        """What the slots start with: the conditions, and of the tokens that are owed the first `most`. The slots count
        as filled from here on."""
        self.needs_prefill = False
        rows: list[PrefillRow] = []
        for part, (slot, ids) in enumerate(zip(slots.all, self.conditions(unconditional_ids))):
            new = self._pay(part, most)
            most -= new.stop - new.start
            rows.append(PrefillRow(slot, ids, self.positions[new], self.token_ids[new], self._seen(new)))
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
            rule=FIXED,
            sampling=self.request.sampling,
            noise_key=self._noise_key,
            commit_seen=self._seen(new),
        )

    def _pay(self, part: int, most: float) -> slice:
        """The tokens that a slot is to take in: none where it is not asked."""
        start = self._num_cached[part]
        if not self.is_complete and part in self._parts:
            self._num_cached[part] = start + self._fitting(part, most)
        return slice(start, self._num_cached[part])

    def _fitting(self, part: int, most: float) -> int:
        """How many of the tokens that a slot is owed enter it together, `most` at most unless a group has more."""
        start = self._num_cached[part]
        owed = self._num_settled - start
        if owed <= most or self._spec.has_free_commits:
            return int(min(owed, most))
        ends = [end - start for end in self._group_ends[start : self._num_settled]]
        return max((end for end in ends if end <= most), default=ends[0] if most > 0 else 0)

    def _seen(self, new: slice) -> tuple[int, ...] | None:
        """How many of the tokens of `new` each of them sees, from the first; None: those up to itself."""
        if self._spec.has_free_commits:
            return None
        return tuple(end - new.start for end in self._group_ends[new])

    def _known_group_ends(self) -> list[int]:
        """Of each known token, how many tokens there are at the end of its group. Raises RequestError."""
        if self._spec.has_free_groups:
            return []
        given = self._num_given
        ends = [given] * given
        for rank in range(self.num_decoded):
            ends.append(given + self.plan.group_of(rank).end)
        if ends and ends[-1] > len(self.positions):
            raise RequestError("known resumes a part of a group; this model's groups are drawn whole", field="known")
        return ends

    def _group_row(self, slots: Slots) -> DecodeRow:
        parts, end = self._parts, self._context_end
        starts = [self._num_cached[part] for part in parts]
        new = slice(min(starts), end)
        order, take = self.plan.order, self._group.end - self.num_decoded
        rule = FIXED if order is not None else RULES[str(self.request.plan.order)]
        most = self._most(rule, take) if self.plan.is_adaptive else take
        start = self.num_decoded
        row = DecodeRow(
            slots=Slots(*(slots.all[part] for part in parts)),
            commit_positions=self.positions[new],
            commit_token_ids=self.token_ids[new],
            query=sorted(self._unknown) if order is None else order[start : start + most],
            take=take,
            rule=rule,
            sampling=self._sampling,
            scales=self._scales_from(start, most) if rule is FIXED else None,
            noise_key=self._noise_key,
            most=most,
            entropy_bound=self.plan.entropy_bound,
            candidates=self.request.plan.candidates,
            held=tuple(cached - new.start for cached in starts),
            begun=self.positions[end:],
            repulsion=self.request.plan.repulsion,
            of_rule=self.request.plan.of_rule,
            has_surprises=self.request.plan.revise > 0,
            commit_seen=self._seen(new),
        )
        for part in parts:
            self._num_cached[part] = end
        self._num_settled = end
        return row

    @property
    def _sampling(self) -> SamplingParams:
        """The request's, with the guidance of the current group."""
        sampling, scale = self.request.sampling, self._scales[0]
        return sampling if scale == sampling.guidance else replace(sampling, guidance=scale)

    @property
    def _scales(self) -> tuple[float, ...]:
        """The guidance of the current group: of each rank, where it has its own."""
        kept = self.request.num_kept or 0  # a revision is the end of its picture
        start, end, length = (kept + count for count in (self._group.start, self._group.end, self.plan.length))
        shares = self._spec.guidance_share.of(start, end, length)
        return tuple(map(self.request.sampling.scale_at, shares))

    def _scales_from(self, rank: int, count: int) -> tuple[float, ...] | None:
        """Of so many ranks from one on; None where all have the group's."""
        if self._spec.guidance_share is not GuidanceShare.RANK:
            return None
        return self._scales[rank - self._group.start :][:count]

    @property
    def _parts(self) -> tuple[int, ...]:
        """The slots that the current group asks."""
        return (0,) if set(self._scales) == {1.0} else (0, 1)

    def _most(self, rule: OrderRule, take: int) -> int:
        """How many positions an adaptive step may decode: all, where the model is asked about all of them anyway."""
        wanted = len(self._unknown) if rule.asks_all else self.plan.lookahead
        return max(take, min(wanted, len(self._unknown)))

    def accept(self, group: DecodedGroup) -> tuple[Patch, ...]:
        """Records what the step of `next_row` decoded: nothing, where that was a chunk."""
        if not group.positions:
            return ()
        first_rank = self.num_decoded
        self.positions += group.positions
        self.token_ids += group.token_ids
        if not self._spec.has_free_groups:
            self._group_ends += [len(self.positions)] * len(group.positions)
        self._unknown.difference_update(group.positions)
        self._num_steps += 1
        surprises: list[float | None] = [None] * len(group.positions)
        if self.request.plan.revise:
            rounded = [round(value, DIGITS) for value in group.surprises]
            self._surprises += rounded
            surprises = [*rounded]
        decoded = zip(group.positions, group.token_ids, group.confidences, surprises)
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
