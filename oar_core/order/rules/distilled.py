"""`distilled`: the positions that the order policy puts first; they alone are asked."""

from oar_core.order.rules.base import OrderRule

DISTILLED = OrderRule("distilled", "by the model's order policy", uses_policy=True)
