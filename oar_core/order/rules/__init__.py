"""The orders that are chosen step by step: a new one is a file here, a line below, and its test."""

from oar_core.order.rules.base import Asked, Decider, OrderRule
from oar_core.order.rules.confidence import CONFIDENCE
from oar_core.order.rules.distilled import DISTILLED
from oar_core.order.rules.likelihood import LIKELIHOOD
from oar_core.order.rules.shortlist import SHORTLIST

__all__ = ["FIXED", "RULES", "Asked", "Decider", "OrderRule"]

RULES = {rule.name: rule for rule in (CONFIDENCE, LIKELIHOOD, DISTILLED, SHORTLIST)}
# Of a row whose positions are listed beforehand: all of them are asked and drawn.
FIXED = OrderRule("fixed", "listed beforehand")
