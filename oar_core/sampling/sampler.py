"""Logits to token ids: temperature, top-k, top-p, and the Gumbel-max draw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.errors import check_options
from oar_core.sampling.guidance import scale_at


@dataclass(frozen=True)
class SamplingParams:
    """Sampling of one picture's tokens. Raises SamplingError.

    `temperature` 0 takes the likeliest token. `top_k` keeps that many of the likeliest (0: all); of those, `top_p`
    keeps the fewest whose probability at this temperature reaches it (1: all). `guidance` 1 is off: no second row.
    It holds for the part of a picture that `guidance_interval` names, as shares of the positions that are decoded, and
    grows towards its full scale by `guidance_schedule`; where the scale is 1, the second row is not computed.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_schedule: str = "constant"

    def __post_init__(self) -> None:
        check_options(vars(self))

    @property
    def is_guided(self) -> bool:
        """Tells whether any part of a picture may be."""
        return self.guidance != 1.0

    def scale_at(self, share: float) -> float:
        """The guidance of positions before which a share of the picture was decoded."""
        return scale_at(self.guidance, self.guidance_schedule, self.guidance_interval, share)

    @property
    def truncates(self) -> bool:
        return self.top_k > 0 or self.top_p < 1.0


@dataclass(frozen=True)
class SamplingRows:
    """The sampling parameters of a batch, one entry per row, so that rows of different wishes share a call."""

    temperature: Float[Tensor, "R"]
    top_k: Int[Tensor, "R"]
    top_p: Float[Tensor, "R"]
    guidance: Float[Tensor, "R"]
    num_ranked: int  # of the likeliest codes, which truncation has to sort: 0 where no row truncates

    @classmethod
    def stack(cls, params: Sequence[SamplingParams], vocab_size: int, device: torch.device) -> "SamplingRows":
        reals = torch.tensor([[p.temperature, p.top_p, p.guidance] for p in params], dtype=torch.float32).to(device)
        # Off is "all codes", also for a top_k beyond the vocabulary.
        top_k = [min(p.top_k or vocab_size, vocab_size) for p in params]
        return cls(
            temperature=reals[:, 0],
            top_k=torch.tensor(top_k).to(device),
            top_p=reals[:, 1],
            guidance=reals[:, 2],
            num_ranked=max((k for k, p in zip(top_k, params) if p.truncates), default=0),
        )

    def of_queries(self, owners: Int[Tensor, "M"]) -> "SamplingRows":
        """One entry for each query of a list, whose row is its owner."""
        return SamplingRows(
            self.temperature[owners], self.top_k[owners], self.top_p[owners], self.guidance[owners], self.num_ranked
        )


def sample(logits: Float[Tensor, "R G V"], rows: SamplingRows, noise: Float[Tensor, "R G V"]) -> Int[Tensor, "R G"]:
    """One token per query from fp32 logits and standard Gumbel noise: argmax(logits / t + noise), t the temperature.

    Both sides are multiplied by t, which is the same draw and holds down to t = 0.
    """
    return choose(logits, ranked(logits, rows), rows, noise)


def choose(
    logits: Float[Tensor, "R G V"],
    likeliest: Float[Tensor, "R G K"] | None,
    rows: SamplingRows,
    noise: Float[Tensor, "R G V"],
) -> Int[Tensor, "R G"]:
    """`sample`, where the logits were `ranked` already."""
    return (truncated(logits, likeliest, rows) + rows.temperature[:, None, None] * noise).argmax(dim=-1)


def ranked(logits: Float[Tensor, "R G V"], rows: SamplingRows) -> Float[Tensor, "R G K"] | None:
    """The greatest logits, descending, as many as truncation may have to look at; None where no row truncates. On a CPU
    numpy sorts with vector instructions, far faster than torch."""
    if not rows.num_ranked:
        return None
    if logits.device.type == "cpu":
        return torch.from_numpy(np.sort(logits.detach().numpy(), axis=-1)).flip(-1)[..., : rows.num_ranked]
    return logits.topk(rows.num_ranked, dim=-1).values


def truncated(
    logits: Float[Tensor, "R G V"], likeliest: Float[Tensor, "R G K"] | None, rows: SamplingRows
) -> Float[Tensor, "R G V"]:
    """Logits with minus infinity for the codes that top-k and top-p leave out."""
    if likeliest is None:
        return logits
    return logits.masked_fill(logits < _cutoff(likeliest, rows, logits.shape[-1]), -math.inf)


def _cutoff(likeliest: Float[Tensor, "R G K"], rows: SamplingRows, vocab_size: int) -> Float[Tensor, "R G 1"]:
    """The least logit that top-k and top-p leave: never above the greatest. Codes that tie with it stay too, so that
    the outcome does not depend on how a sort treats equals."""
    places = torch.arange(likeliest.shape[-1], device=likeliest.device)
    within_k = (places < rows.top_k[:, None])[:, None]
    # Below this temperature nothing but the likeliest code has any probability left in fp32.
    temperature = rows.temperature.clamp(min=1e-6)[:, None, None]
    scaled = ((likeliest - likeliest[..., :1]) / temperature).masked_fill(~within_k, -math.inf)
    probability = scaled.softmax(dim=-1)
    # Off is tested for: a cumulative sum may round to 1 before its end.
    all_of_p = (rows.top_p >= 1.0)[:, None, None]
    within_p = (probability.cumsum(dim=-1) - probability < rows.top_p[:, None, None]) | all_of_p
    num_kept = (within_k & within_p).sum(dim=-1, keepdim=True).clamp(min=1)
    least = likeliest.gather(-1, num_kept - 1)
    all_of_k = (rows.top_k == vocab_size)[:, None, None]
    return least.masked_fill(all_of_p & all_of_k, -math.inf)
