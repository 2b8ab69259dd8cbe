"""`shortlist`: of the positions that the order policy puts first, those of which the model is surest."""

from oar_core.order.rules.base import OrderRule
from oar_core.order.rules.confidence import CERTAINTY

SHORTLIST = OrderRule(
    "shortlist",
    "the model chooses among what its policy proposes",
    uses_policy=True,
    decider=CERTAINTY,
    counts_candidates=True,
)
