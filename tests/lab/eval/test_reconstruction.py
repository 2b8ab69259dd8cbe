"""PSNR and code usage."""

import math

import pytest
import torch

from oar_lab.eval.reconstruction import measure_reconstruction, psnr


class Grey:
    """Two codes, black and white, one per picture of one token."""

    grid = (1, 1)
    vocab_size = 4

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return (images.mean((1, 2, 3)) > 0).long()[:, None]

    def decode(self, token_ids: torch.Tensor) -> torch.Tensor:
        return (token_ids.float() * 2 - 1)[..., None, None].expand(-1, 3, 2, 2)

    def decode_partial(self, token_ids: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return self.decode(token_ids)


def test_psnr_of_a_known_error() -> None:
    real = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    assert psnr(real, real + 10).item() == pytest.approx(20 * math.log10(25.5), abs=1e-4)


def test_an_exact_copy_is_finite() -> None:
    real = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert 50 < psnr(real, real).item() < 100


def test_usage_and_perplexity_count_the_codes() -> None:
    black, white = torch.full((3, 3, 2, 2), -1.0), torch.full((3, 3, 2, 2), 1.0)
    report = measure_reconstruction(Grey(), [black, white])
    assert report.num_images == 6
    assert report.codes_used == 0.5
    assert report.perplexity == pytest.approx(2.0)
