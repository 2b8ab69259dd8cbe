"""All that a step does behind the network: noise, truncation, the draw, and how sure the model is of it."""

from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.errors import ConfigError
from oar_core.order.certainty import log_odds_of_best
from oar_core.sampling.noise import code_counters, gumbel_of
from oar_core.sampling.sampler import SamplingParams, SamplingRows, choose, ranked


class Drawn(NamedTuple):
    token_ids: Int[Tensor, "Q"]
    confidences: Float[Tensor, "Q"]  # probability of the likeliest token, drawn or not


class Draw(Protocol):
    """One token for each query of a list, from its fp32 logits; all arguments have one entry for each query."""

    def __call__(
        self, logits: Float[Tensor, "Q V"], positions: Int[Tensor, "Q"], keys: Int[Tensor, "Q"], rows: SamplingRows
    ) -> Drawn: ...


def plain_draw(
    logits: Float[Tensor, "Q V"], positions: Int[Tensor, "Q"], keys: Int[Tensor, "Q"], rows: SamplingRows
) -> Drawn:
    """One operation after another."""
    counters = code_counters(logits.shape[-1], logits.device)
    return Drawn(*_drawn(logits[:, None], ranked(logits[:, None], rows), positions, keys, counters, rows))


def _drawn(
    logits: Float[Tensor, "Q 1 V"],
    likeliest: Float[Tensor, "Q 1 K"] | None,
    positions: Int[Tensor, "Q"],
    keys: Int[Tensor, "Q"],
    counters: Int[Tensor, "V"],
    rows: SamplingRows,
) -> tuple[Int[Tensor, "Q"], Float[Tensor, "Q"]]:
    noise = gumbel_of(keys, positions[:, None], counters)
    return choose(logits, likeliest, rows, noise).squeeze(1), log_odds_of_best(logits).sigmoid().squeeze(1)


class CompiledDraw:
    """The draw in few passes over memory, by torch's compiler, which needs a C++ compiler on a CPU and Triton on CUDA.

    Logarithms may differ from those of `plain_draw` in their last bit: a token that wins by less may be another.
    """

    @torch.inference_mode()
    def __init__(self, vocab_size: int, device: torch.device) -> None:
        """Compiles at once, for any number of queries. Raises ConfigError where that fails."""
        # Given, since a compiled `arange` of a size that is not fixed counts in 32 bits, in torch 2.13.
        self._counters = code_counters(vocab_size, device)
        self._drawn = torch.compile(_drawn, dynamic=True, fullgraph=True)
        nothing = torch.zeros(2, dtype=torch.long, device=device)
        try:
            for params_of in (SamplingParams(), SamplingParams(top_p=0.5)):
                logits = torch.zeros(2, vocab_size, device=device)
                rows = SamplingRows.stack([params_of], vocab_size, device).of_queries(nothing)
                self(logits, nothing.clone(), nothing.clone(), rows)  # one tensor twice would be a case of its own
        except RuntimeError as error:  # as all of the compiler's are; to import their names takes a second and a half
            reason = " ".join(str(error).split("\n\n")[0].split())  # advice follows
            raise ConfigError(f"the draw cannot be compiled here: {reason}") from error

    def __call__(
        self, logits: Float[Tensor, "Q V"], positions: Int[Tensor, "Q"], keys: Int[Tensor, "Q"], rows: SamplingRows
    ) -> Drawn:
        if not len(logits):  # a step of prefills alone
            return plain_draw(logits, positions, keys, rows)
        if len(logits) == 1:  # which would be compiled once more, as a number that is fixed
            twice = torch.zeros(2, dtype=torch.long, device=logits.device)
            drawn = self(logits[twice], positions[twice], keys[twice], rows.of_queries(twice))
            return Drawn(*(part[:1] for part in drawn))
        logits = logits[:, None]
        # All codes or none: another number of them would be compiled while pictures wait.
        rows = replace(rows, num_ranked=rows.num_ranked and logits.shape[-1])
        return Drawn(
            *self._drawn(logits, ranked(logits, rows), positions, keys, self._counters, replace(rows, num_ranked=0))
        )
