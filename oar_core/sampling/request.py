"""A request: one picture."""

from dataclasses import dataclass

from oar_core.errors import OrderError, PromptError, PromptLengthError, RequestError, StepsError, request_error
from oar_core.models.base import BackboneSpec, Features, Prefix
from oar_core.models.frames import FramesSpec
from oar_core.order.plan import POLICY_ORDERS, PUBLISHED, PlanSpec
from oar_core.order.rules import RULES
from oar_core.sampling.sampler import SamplingParams
from oar_wire.options import BadOption, check_fixed_sizes, check_raster, check_revise, check_steps


@dataclass(frozen=True)
class KnownTokens:
    """Tokens that a picture starts with, in the order in which they enter the cache.

    The last `num_resumed` of them are this plan's own earlier output, in decode order: they count as its first ranks,
    and the picture goes on as if it had never stopped. Those before are given from outside (an edit keeps them): the
    plan covers the other positions only. A resumed edit has both. `num_steps` is how many steps made the resumed ones:
    an adaptive plan has to know it, and goes on where a step ended.

    A picture that is to be revised (`PlanSpec.revise`) also has to know how surprising each of the resumed tokens was,
    and once they are all of the picture, which tokens the revision has `redrawn` so far, in its own order. Raises
    RequestError.
    """

    positions: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    num_resumed: int = 0
    num_steps: int = 0
    surprises: tuple[float, ...] = ()  # of the resumed tokens, in nats
    redrawn: tuple[int, ...] = ()  # token ids

    def __post_init__(self) -> None:
        if len(self.positions) != len(self.token_ids):
            raise RequestError(
                f"known names {len(self.positions)} positions and {len(self.token_ids)} tokens", field="known"
            )
        if len(set(self.positions)) != len(self.positions):
            raise RequestError("known names a position twice", field="known")
        if not 0 <= self.num_resumed <= len(self.positions):
            raise RequestError(
                f"known resumes {self.num_resumed} tokens and holds {len(self.positions)}", field="known"
            )

        if not 0 <= self.num_steps <= self.num_resumed:
            raise RequestError(f"known resumes {self.num_resumed} tokens of {self.num_steps} steps", field="known")

    @property
    def num_given(self) -> int:
        return len(self.positions) - self.num_resumed

    @property
    def given(self) -> frozenset[int]:
        return frozenset(self.positions[: self.num_given])

    @property
    def resumed(self) -> tuple[int, ...]:
        return self.positions[self.num_given :]


@dataclass(frozen=True)
class SequenceRequest:
    """One picture to make. `id` is the caller's; `condition_ids` come from the model's conditioner."""

    id: str
    condition_ids: Prefix
    seed: int
    image_index: int
    plan: PlanSpec
    sampling: SamplingParams
    known: KnownTokens = KnownTokens()
    negative_ids: Prefix | None = None  # condition that guidance steers away from; None: the unconditional one
    num_kept: int | None = None  # of a revision: how many of the given tokens the picture's own plan has decoded

    @property
    def is_guided(self) -> bool:
        """Tells whether any part of the picture may be."""
        return self.sampling.is_guided

    def conditions(self, unconditional_ids: tuple[int, ...], spec: BackboneSpec) -> tuple[Prefix, Prefix]:
        """Prefixes that its slots start with: the picture's condition, and the one that guidance steers away from."""
        unconditional = spec.unconditional_beside(self.condition_ids, unconditional_ids)
        return self.condition_ids, self.negative_ids or unconditional

    def check_fits(self, spec: BackboneSpec, *, has_policy: bool) -> None:
        """Raises a RequestError where the model cannot serve this. The plan is checked when it is laid out."""
        check_condition(self.condition_ids, spec)
        if self.negative_ids is not None:
            check_condition(self.negative_ids, spec, "negative_prompt")
        if not spec.has_free_order:
            self._check_raster(spec)
        if self.plan.order in POLICY_ORDERS and not has_policy:
            raise OrderError(f"order is {self.plan.order}, and this model has no order policy", field="order")
        rule = RULES.get(self.plan.order) if isinstance(self.plan.order, str) else None
        if rule is not None and rule.asks_more and not spec.can_ask_all:
            raise OrderError(
                f"order is {self.plan.order}, which scores all remaining positions; this model's answers depend on what"
                " is asked together",
                field="order",
            )
        if self.plan.revise:
            self._check_revision(spec)
        if self.plan.is_adaptive and not spec.has_free_groups:
            raise StepsError("group_sizes is adaptive; this model's groups are fixed beforehand", field="group_sizes")
        if self.plan.group_sizes == PUBLISHED and spec.published_groups is None:
            raise StepsError("group_sizes is published; this model's family has none", field="group_sizes")
        if not all(0 <= position < spec.num_tokens for position in self.known.positions):
            raise RequestError(f"known names a position outside 0 to {spec.num_tokens - 1}", field="known")
        if not all(0 <= token_id < spec.vocab_size for token_id in self.known.token_ids):
            raise RequestError(f"known holds a token outside 0 to {spec.vocab_size - 1}", field="known")

    def _check_raster(self, spec: BackboneSpec) -> None:
        """Raises a RequestError for what a model without a choice of positions cannot do."""
        try:
            check_raster(self.plan.order, spec.num_tokens, spec.layout.kind)
            if self.plan.steps is not None:
                check_steps(self.plan.steps, spec.num_tokens, fixed=spec.fixed_sizes)
            check_fixed_sizes(self.plan.group_sizes, spec.fixed_sizes)
        except BadOption as error:
            raise request_error(error) from error
        if self.plan.is_adaptive:
            raise StepsError("group_sizes is adaptive; this model's steps are fixed", field="group_sizes")
        if self.known.num_given:
            raise RequestError(
                "this model writes whole pictures, from the first token on; no part can be given", field="known"
            )

    def _check_revision(self, spec: BackboneSpec) -> None:
        """Raises a RequestError where tokens cannot be dropped and drawn again."""
        try:
            check_revise(self.plan.revise, can_revise=spec.can_revise)
        except BadOption as error:
            raise request_error(error) from error
        if len(self.known.surprises) != self.known.num_resumed:
            raise RequestError("known resumes a picture that is to be revised, without its surprises", field="known")


def check_condition(condition_ids: Prefix, spec: BackboneSpec | FramesSpec, field: str = "prompt") -> None:
    """Raises PromptError or PromptLengthError of the field where this is no condition prefix of the model."""
    if not condition_ids:
        raise PromptError("the prompt has no tokens", field=field)
    if len(condition_ids) > spec.max_condition:
        raise PromptLengthError(
            f"the prompt has {len(condition_ids)} tokens; the model takes up to {spec.max_condition}", field=field
        )
    if isinstance(condition_ids, Features):
        _check_features(condition_ids, spec.feature_width, field)
    elif not all(0 <= token_id < spec.condition_vocab for token_id in condition_ids):
        raise PromptError(f"the prompt has a token outside 0 to {spec.condition_vocab - 1}", field=field)


def _check_features(features: Features, feature_width: int, field: str) -> None:
    width = features.values.shape[1]
    if not feature_width:
        raise PromptError("the prompt consists of features, and this model reads ids", field=field)
    if width != feature_width:
        raise PromptError(f"features are {width} wide; the model reads {feature_width}", field=field)
    if not features.values.isfinite().all():
        raise PromptError("the prompt has features that are no finite numbers", field=field)
