"""Noise in the context, against exposure bias: the model's own draws will be wrong where the data never are."""

import torch
from jaxtyping import Int
from torch import Tensor

from oar_core.train.loop import Step


def corrupt_context(
    token_ids: Int[Tensor, "B L"], highest_share: float, vocab_size: int, step: Step
) -> Int[Tensor, "B L"]:
    """Context with some tokens replaced by uniformly drawn ones; the targets stay clean (reAR, arXiv 2510.04450).

    Each picture has a rate of its own, uniform from 0 to `highest_share`, which falls linearly to 0 over the run.
    A share of 0 draws nothing from the step's generator.
    """
    if not highest_share:
        return token_ids
    rates = highest_share * (1 - step.progress) * torch.rand(len(token_ids), 1, generator=step.generator)
    is_hit = torch.rand(token_ids.shape, generator=step.generator) < rates
    drawn = torch.randint(vocab_size, token_ids.shape, generator=step.generator)
    return torch.where(is_hit, drawn, token_ids)
