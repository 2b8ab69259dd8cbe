"""Is a model copying? How close generated pictures come to the training set, beside how close real new ones come."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from oar_lab.eval.distances import nearest_rows

CLOSE_QUANTILE = 0.01
PIXEL_CHUNK = 4096  # training pictures a time


@dataclass(frozen=True)
class Closeness:
    """Nearest training neighbours of generated pictures against those of held-out real ones.

    A model that copies has a small `distance_ratio` and a large `share_closer`; the latter is 0.01 where generated
    pictures are as close as real new ones.
    """

    num_generated: int
    num_real: int
    distance_ratio: float  # median generated / median real
    share_closer: float  # generated that are closer than the closest 1 % of the real
    threshold: float  # that first percentile, in the unit of the distance


def closeness(generated: Float[Tensor, "M"], real: Float[Tensor, "N"]) -> Closeness:
    """Summarises distances to the nearest training picture. At the threshold itself is not closer."""
    threshold = real.double().quantile(CLOSE_QUANTILE)
    # Held-out pictures may be exact copies of training ones; the ratio then compares with the least positive number.
    median = real.double().median().clamp(min=torch.finfo(torch.float64).tiny)
    return Closeness(
        num_generated=len(generated),
        num_real=len(real),
        distance_ratio=(generated.double().median() / median).item(),
        share_closer=(generated.double() < threshold).double().mean().item(),
        threshold=threshold.item(),
    )


def nearest_pixels(
    pictures: UInt8[np.ndarray, "M Y X 3"], training: UInt8[np.ndarray, "N Y X 3"], *, pool: int = 2
) -> Float[Tensor, "M"]:
    """Root mean squared difference to the nearest training picture, in grey levels, after `pool` x `pool` averaging.

    Averaging quarters the work and forgives the last pixel of misalignment; a copy stays a copy.
    """
    vectors = _vectors(pictures, pool)
    best = torch.full((len(vectors),), torch.inf)
    for start in range(0, len(training), PIXEL_CHUNK):
        part = _vectors(training[start : start + PIXEL_CHUNK], pool)
        best = torch.minimum(best, nearest_rows(vectors, part))
    return best / vectors.shape[1] ** 0.5


def _vectors(pictures: UInt8[np.ndarray, "M Y X 3"], pool: int) -> Float[Tensor, "M D"]:
    images = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float()
    return F.avg_pool2d(images, pool).flatten(1)
