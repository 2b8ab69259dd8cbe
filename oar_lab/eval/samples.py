"""Pictures of held-out captions, to look at beside the real ones."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8

from oar_core.models.model import Model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams

BATCH = 64


def draw_samples(
    pipeline: Model, prompts: Sequence[str], plan: PlanSpec, sampling: SamplingParams
) -> UInt8[np.ndarray, "M Y X 3"]:
    """One picture a prompt; picture i has seed i. Raises a RequestError for a prompt or plan that cannot be served."""
    requests = [
        SequenceRequest(str(seed), pipeline.encode_prompt(prompt), seed, 0, plan, sampling)
        for seed, prompt in enumerate(prompts)
    ]
    parts = [
        pipeline.decode(torch.tensor(generate(pipeline.backbone, chunk, pipeline.unconditional_ids)))
        for chunk in (requests[start : start + BATCH] for start in range(0, len(requests), BATCH))
    ]
    return np.concatenate(parts)
