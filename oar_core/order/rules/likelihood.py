"""`likelihood`: the positions whose drawn token is likeliest. A biased sampler, and never a default."""

from jaxtyping import Float
from torch import Tensor

from oar_core.order.certainty import log_probability
from oar_core.order.rules.base import Asked, Decider, OrderRule


class DrawnLikelihood(Decider):
    """Chooses among draws, which biases what is drawn: single pictures are cleaner, and their variety is less."""

    looks_at_draws = True

    def scores(self, asked: Asked) -> Float[Tensor, "R G"]:
        return asked.as_table(log_probability(asked.logits, asked.draw()))


LIKELIHOOD = OrderRule(
    "likelihood", "draws everywhere and keeps what is likeliest: cleaner, less varied", decider=DrawnLikelihood()
)
