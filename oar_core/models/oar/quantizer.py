"""A vector quantizer on the unit sphere, its codebook kept by moving averages."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Quantized:
    codes: Float[Tensor, "B L C"]  # chosen codes; gradients pass straight through to the input
    token_ids: Int[Tensor, "B L"]
    commitment: Float[Tensor, ""]  # mean squared distance of the inputs to their codes


class Quantizer(nn.Module):
    """Nearest code by cosine similarity in a low-dimensional space (Yu et al. 2022, arXiv 2110.04627).

    The codebook is not trained by gradient: `update` keeps each code at the moving average of the vectors that chose
    it (van den Oord et al. 2017, arXiv 1711.00937, appendix A.1) and moves codes that nobody chooses to where the
    error is largest, so that a flat background, which is most of many pictures, does not take the codebook over.
    """

    codebook: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(self, vocab_size: int, code_width: int, *, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("codebook", F.normalize(torch.ones(vocab_size, code_width), dim=-1))
        self.register_buffer("usage", torch.zeros(vocab_size))
        self.register_buffer("sums", torch.zeros(vocab_size, code_width))

    def forward(self, vectors: Float[Tensor, "B L C"]) -> Quantized:
        unit = F.normalize(vectors.float(), dim=-1)
        token_ids = nearest(unit.detach(), self.codebook)
        codes = self.lookup(token_ids)
        commitment = (unit - codes).square().sum(-1).mean()
        return Quantized(unit + (codes - unit).detach(), token_ids, commitment)

    def lookup(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L C"]:
        return F.embedding(token_ids, self.codebook)

    @torch.no_grad()
    def initialize(self, vectors: Float[Tensor, "M C"], generator: torch.Generator, *, rounds: int = 10) -> None:
        """Spherical k-means over a sample of encoder outputs, seeded by distance as in k-means++."""
        unit = F.normalize(vectors.float(), dim=-1)
        self.codebook.copy_(_spread_seeds(unit, len(self.codebook), generator))
        for _ in range(rounds):
            choice = nearest(unit, self.codebook)
            counts, sums = self._assign(unit, choice)
            filled = counts > 0
            self.codebook[filled] = F.normalize(sums[filled], dim=-1)
        counts, sums = self._assign(unit, nearest(unit, self.codebook))
        scale = 1.0 / counts.sum()
        self.usage.copy_(counts * scale)
        self.sums.copy_(sums * scale)

    @torch.no_grad()
    def update(
        self,
        vectors: Float[Tensor, "B L C"],
        token_ids: Int[Tensor, "B L"],
        generator: torch.Generator,
        *,
        restart_below: float = 1e-5,
    ) -> int:
        """One moving-average step; returns how many codes with a share of use under `restart_below` were moved."""
        unit = F.normalize(vectors.float(), dim=-1).flatten(0, 1)
        choice = token_ids.flatten()
        counts, sums = self._assign(unit, choice)
        scale = (1 - self.decay) / len(unit)
        self.usage.mul_(self.decay).add_(counts * scale)
        self.sums.mul_(self.decay).add_(sums * scale)
        self.codebook.copy_(F.normalize(self.sums, dim=-1))
        return self._restart(unit, choice, generator, restart_below)

    def _restart(self, unit: Tensor, choice: Tensor, generator: torch.Generator, restart_below: float) -> int:
        dead = torch.nonzero(self.usage < restart_below).flatten()
        if not len(dead):
            return 0
        error = (1 - (unit * self.codebook[choice]).sum(-1)).clamp_min(0) + 1e-8
        picked = torch.multinomial(error.cpu(), min(len(dead), len(unit)), generator=generator).to(unit.device)
        dead = dead[: len(picked)]
        share = 1.0 / len(self.codebook)
        self.codebook[dead] = unit[picked]
        self.usage[dead] = share
        self.sums[dead] = unit[picked] * share
        return len(dead)

    def _assign(self, unit: Float[Tensor, "M C"], choice: Int[Tensor, "M"]) -> tuple[Tensor, Tensor]:
        counts = torch.bincount(choice, minlength=len(self.codebook)).float()
        sums = torch.zeros_like(self.sums).index_add_(0, choice, unit)
        return counts, sums


def nearest(unit: Float[Tensor, "*S C"], codebook: Float[Tensor, "V C"]) -> Int[Tensor, "*S"]:
    with torch.autocast(unit.device.type, enabled=False):
        return (unit.float() @ codebook.float().T).argmax(-1)


def _spread_seeds(unit: Float[Tensor, "M C"], count: int, generator: torch.Generator) -> Float[Tensor, "V C"]:
    """Seeds drawn in batches with probability growing with the distance to the seeds so far."""
    seeds = unit[torch.randint(len(unit), (1,), generator=generator).to(unit.device)]
    batches = 16
    while len(seeds) < count:
        distance = (1 - (unit @ seeds.T).amax(-1)).clamp_min(0) + 1e-8
        needed = min(-(-count // batches), count - len(seeds))
        picked = torch.multinomial(distance.cpu(), needed, replacement=needed > len(unit), generator=generator)
        seeds = torch.cat([seeds, unit[picked.to(unit.device)]])
    return seeds
