"""`confidence`: the positions of which the model is surest, before anything is drawn."""

from jaxtyping import Float
from torch import Tensor

from oar_core.order.rules.base import Asked, Decider, OrderRule
from oar_core.order.score import CERTAINTIES, scored


class Certainty(Decider):
    """Chooses by the score that the model names, see `OrderScore`."""

    def scores(self, asked: Asked) -> Float[Tensor, "R G"]:
        certainty = asked.as_table(CERTAINTIES[asked.order_score.name](asked.logits))
        return scored(certainty, asked.candidates, asked.widths, asked.grid, asked.order_score)


CERTAINTY = Certainty()
CONFIDENCE = OrderRule("confidence", "where the model is surest, step by step", decider=CERTAINTY)
