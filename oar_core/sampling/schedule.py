"""The steps of one plan of a picture: which group is next, and under which guidance."""

from dataclasses import replace

from oar_core.errors import RequestError
from oar_core.models.base import BackboneSpec, GuidanceShare
from oar_core.order.plan import Group, make_plan
from oar_core.order.rules import OrderRule
from oar_core.sampling.picture_tokens import PictureTokens
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams


class Schedule:
    """The plan of a request, and where its picture is in it. The current group is the one that is decoded next."""

    def __init__(self, request: SequenceRequest, spec: BackboneSpec, tokens: PictureTokens) -> None:
        """Raises a RequestError where the known tokens are not the first ones of the plan."""
        known = request.known
        self._request, self._spec, self._tokens = request, spec, tokens
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
        self.num_made = known.num_steps  # steps so far; only adaptive plans cannot tell it from the rank

    def known_group_ends(self) -> list[int]:
        """For each known token, the number of tokens at the end of its group; none where groups are free. Raises
        RequestError."""
        if self._spec.has_free_groups:
            return []
        given = self._tokens.num_given
        ends = [given] * given
        for rank in range(self._tokens.num_decoded):
            ends.append(given + self.plan.group_of(rank).end)
        if ends and ends[-1] > len(self._tokens.positions):
            raise RequestError("known resumes a part of a group; this model's groups are drawn whole", field="known")
        return ends

    @property
    def group(self) -> Group:
        """The current group; an adaptive one starts with this step and ends here at the earliest."""
        decoded = self._tokens.num_decoded
        if not self.plan.is_adaptive:
            return self.plan.group_of(decoded)
        end = self.plan.group_ends[min(self.num_made, self.plan.steps - 1)]
        return Group(self.num_made, decoded, max(end, decoded + 1))

    @property
    def context_end(self) -> int:
        """Number of tokens that the current group is decoded from."""
        return self._tokens.num_given + self.group.start

    @property
    def steps(self) -> int:
        """Number of steps of the picture; the current upper bound where groups are adaptive."""
        if not self.plan.is_adaptive:
            return self.plan.steps
        return self.num_made + min(max(0, self.plan.steps - self.num_made), self._tokens.num_unknown)

    @property
    def step(self) -> int:
        """The step that decodes the current group, counted from 1."""
        return self.group.step + 1

    @property
    def scales(self) -> tuple[float, ...]:
        """The guidance of the current group: of each rank, where it has its own."""
        kept = self._request.num_kept or 0  # a revision is the end of its picture
        start, end, length = (kept + count for count in (self.group.start, self.group.end, self.plan.length))
        shares = self._spec.guidance_share.of(start, end, length)
        return tuple(map(self._request.sampling.scale_at, shares))

    def scales_from(self, rank: int, count: int) -> tuple[float, ...] | None:
        """Guidance scales of consecutive ranks; None where all have the group's."""
        if self._spec.guidance_share is not GuidanceShare.RANK:
            return None
        return self.scales[rank - self.group.start :][:count]

    @property
    def sampling(self) -> SamplingParams:
        """The request's, with the guidance of the current group."""
        sampling, scale = self._request.sampling, self.scales[0]
        return sampling if scale == sampling.guidance else replace(sampling, guidance=scale)

    @property
    def parts(self) -> tuple[int, ...]:
        """The slots that the current group asks: the conditional one, and the other where guidance is on."""
        return (0,) if set(self.scales) == {1.0} else (0, 1)

    def most(self, rule: OrderRule, take: int) -> int:
        """Number of positions that the step may decode: more than `take` where it is adaptive, and all where the model
        is asked about all of them anyway."""
        if not self.plan.is_adaptive:
            return take
        unknown = self._tokens.num_unknown
        return max(take, min(unknown if rule.asks_all else self.plan.lookahead, unknown))
