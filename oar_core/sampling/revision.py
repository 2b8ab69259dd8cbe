"""Revision: when a picture is whole, its most surprising tokens are dropped once and drawn again given all the others.

To choose among tokens by what was drawn biases the sampler: single pictures have fewer faults, and are no longer exact
samples of the model. So it is asked for (`PlanSpec.revise`), never a default.

What is redrawn is an edit of its own picture: the tokens that stay are prefilled anew, in the order in which they were
decoded, and those that were dropped follow in the same order, in `REVISION_STEPS` steps under noise of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from oar_core.order.plan import PlanSpec
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_wire.options import REVISION_STEPS

DIGITS = 4  # of a surprise, in nats: what the event log holds decides, so that a resumed picture drops the same


@dataclass(frozen=True)
class DecodedTokens:
    """Tokens that a plan has decoded, in decode order."""

    positions: Sequence[int]
    token_ids: Sequence[int]
    surprises: Sequence[float]


def num_revised(revise: int, num_decoded: int) -> int:
    """Number of tokens that a revision draws again."""
    return min(revise, num_decoded)


def num_revision_steps(revise: int, num_decoded: int) -> int:
    return min(REVISION_STEPS, num_revised(revise, num_decoded))


def dropped_ranks(surprises: Sequence[float], count: int) -> list[int]:
    """Ranks of the `count` most surprising tokens, ascending; of equals the first."""
    by_surprise = sorted(range(len(surprises)), key=lambda rank: (-surprises[rank], rank))
    return sorted(by_surprise[:count])


def revision_request(request: SequenceRequest, decoded: DecodedTokens, num_tokens: int) -> SequenceRequest:
    """The request of the second pass. Tokens that it has drawn already (`KnownTokens.redrawn`) are resumed."""
    known = request.known
    dropped = dropped_ranks(decoded.surprises, num_revised(request.plan.revise, len(decoded.positions)))
    kept = sorted(set(range(len(decoded.positions))).difference(dropped))
    order = tuple(decoded.positions[rank] for rank in dropped)
    others = sorted(set(range(num_tokens)).difference(order))
    resumed = len(known.redrawn)
    given = known.num_given
    return replace(
        request,
        plan=PlanSpec(order=(*order, *others), steps=REVISION_STEPS, group_sizes="constant"),
        known=KnownTokens(
            (*known.positions[:given], *(decoded.positions[rank] for rank in kept), *order[:resumed]),
            (*known.token_ids[:given], *(decoded.token_ids[rank] for rank in kept), *known.redrawn),
            num_resumed=resumed,
        ),
        num_kept=len(kept),
    )
