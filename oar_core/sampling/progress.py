"""Progress of one picture: what its next step commits and asks, and what it has decoded."""

import math
from dataclasses import dataclass, replace

from oar_core.models.base import Backbone, BackboneSpec, Prefix
from oar_core.order.plan import PROMPTED
from oar_core.order.rules import FIXED, RULES
from oar_core.sampling.decode import DecodedGroup, DecodeRow, Slots
from oar_core.sampling.noise import noise_key, revision_key
from oar_core.sampling.picture_tokens import PictureTokens
from oar_core.sampling.prefill import PrefillRow
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.revision import num_revised, num_revision_steps, revision_request
from oar_core.sampling.schedule import Schedule
from oar_core.sampling.slot_entries import SlotEntries


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


class PictureProgress:
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
        spec = self._spec
        if spec.fixed_sizes is not None:
            plan = replace(request.plan, group_sizes=spec.fixed_sizes, steps=len(spec.fixed_sizes))
            request = replace(request, plan=plan)
        self.request = request
        self.is_revising = request.num_kept is not None  # whether the second plan is in place
        self.needs_prefill = True  # whether its slots hold nothing of it yet
        self.tokens = PictureTokens(request.known, spec.num_tokens)
        self.schedule = Schedule(request, spec, self.tokens)
        self.entries = SlotEntries(
            self.schedule.known_group_ends(),
            0 if self.is_complete else self.schedule.context_end,
            has_free_groups=spec.has_free_groups,
            has_free_commits=spec.has_free_commits,
        )
        self.noise_key = (revision_key if self.is_revising else noise_key)(request.seed, request.image_index)

    def begin_revision(self) -> bool:
        """Drops tokens of the whole picture that are to be drawn again. False where there are none: it is finished."""
        if self.is_revising or not num_revised(self.request.plan.revise, self.tokens.num_decoded):
            return False
        self._lay_out(revision_request(self.request, self.tokens.decoded, self._spec.num_tokens))
        return True

    @property
    def is_complete(self) -> bool:
        return self.tokens.is_complete

    @property
    def steps(self) -> int:
        """Number of steps of the current plan; an upper bound where groups are adaptive."""
        return self.schedule.steps

    @property
    def num_steps_left(self) -> int:
        """Steps left in both plans."""
        left = 0 if self.is_complete else self.steps - self.schedule.step + 1
        if self.is_revising:
            return left
        return left + num_revision_steps(self.request.plan.revise, self.schedule.plan.length)

    @property
    def owed(self) -> int:
        """Number of entries that the slots lack before the next group can be queried, the latest step aside."""
        return 0 if self.is_complete else self.entries.owed(self.schedule.parts)

    def chunk(self, most: float) -> int:
        """Number of owed entries that the next step takes in, `most` at most: all of them, or some of one slot."""
        owed = self.owed
        return owed if owed <= most else self.entries.fitting(self.entries.first_owing(self.schedule.parts), most)

    def conditions(self, unconditional_ids: tuple[int, ...]) -> tuple[Prefix, Prefix]:
        """Prefixes that its slots start with: the picture's condition, and the one that guidance steers away from."""
        return self.request.conditions(unconditional_ids, self._spec)

    def prefill_rows(
        self, slots: Slots, unconditional_ids: tuple[int, ...], most: float = math.inf
    ) -> list[PrefillRow]:
        """Rows that fill the slots: the conditions, and of the tokens that are owed the first `most`. The
        slots count as filled from here on."""
        self.needs_prefill = False
        asked = () if self.is_complete else self.schedule.parts
        tokens, rows = self.tokens, list[PrefillRow]()
        for part, (slot, ids) in enumerate(zip(slots.all, self.conditions(unconditional_ids))):
            new = self.entries.pay(part, most if part in asked else 0)
            most -= new.stop - new.start
            rows.append(PrefillRow(slot, ids, tokens.positions[new], tokens.token_ids[new], self.entries.seen(new)))
        return rows

    def next_row(self, slots: Slots, most: float = math.inf) -> DecodeRow:
        """Plans the next step of this picture: its group, or the first `most` of the tokens that are owed
        where that is not all of them. The row counts as carried out from here on."""
        return _group_row(self, slots) if self.owed <= most else _chunk_row(self, slots, most)

    def accept(self, group: DecodedGroup) -> tuple[Patch, ...]:
        """Records what the step of `next_row` decoded: nothing, where that was a chunk."""
        if not group.positions:
            return ()
        first_rank = self.tokens.num_decoded
        surprises = self.tokens.add(group, has_surprises=self.request.plan.revise > 0)
        self.entries.add_group(len(group.positions), len(self.tokens.positions))
        self.schedule.num_made += 1
        decoded = zip(group.positions, group.token_ids, group.confidences, surprises)
        return tuple(Patch(first_rank + offset, *patch) for offset, patch in enumerate(decoded))


def begin_picture(request: SequenceRequest, backbone: Backbone) -> PictureProgress:
    """Looks up the order that the condition decides, where that is asked for. Raises a RequestError for a request that
    the backbone cannot serve."""
    if request.plan.order == PROMPTED and backbone.order_tree is not None:
        ids = request.condition_ids if isinstance(request.condition_ids, tuple) else ()
        request = replace(request, plan=replace(request.plan, order=backbone.order_tree.order(ids)))
    return PictureProgress(request, backbone.spec, has_policy=backbone.has_policy)


def _chunk_row(picture: PictureProgress, slots: Slots, most: float) -> DecodeRow:
    part = picture.entries.first_owing(picture.schedule.parts)
    new = picture.entries.pay(part, most)
    return DecodeRow(
        slots=Slots(slots.all[part]),
        commit_positions=picture.tokens.positions[new],
        commit_token_ids=picture.tokens.token_ids[new],
        query=(),
        take=0,
        rule=FIXED,
        sampling=picture.request.sampling,
        noise_key=picture.noise_key,
        commit_seen=picture.entries.seen(new),
    )


def _group_row(picture: PictureProgress, slots: Slots) -> DecodeRow:
    request, tokens, schedule, entries = picture.request, picture.tokens, picture.schedule, picture.entries
    parts, end = schedule.parts, schedule.context_end
    starts = [entries.num_cached[part] for part in parts]
    new = slice(min(starts), end)
    start, order, take = tokens.num_decoded, schedule.plan.order, schedule.group.end - tokens.num_decoded
    rule = FIXED if order is not None else RULES[str(request.plan.order)]
    most = schedule.most(rule, take)
    row = DecodeRow(
        slots=Slots(*(slots.all[part] for part in parts)),
        commit_positions=tokens.positions[new],
        commit_token_ids=tokens.token_ids[new],
        query=tokens.unknown if order is None else order[start : start + most],
        take=take,
        rule=rule,
        sampling=schedule.sampling,
        scales=schedule.scales_from(start, most) if rule is FIXED else None,
        noise_key=picture.noise_key,
        most=most,
        entropy_bound=schedule.plan.entropy_bound,
        candidates=request.plan.candidates,
        held=tuple(cached - new.start for cached in starts),
        begun=tokens.positions[end:],
        repulsion=request.plan.repulsion,
        of_rule=request.plan.of_rule,
        has_surprises=request.plan.revise > 0,
        commit_seen=entries.seen(new),
    )
    entries.fill(parts, end)
    return row
