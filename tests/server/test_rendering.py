import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oar_core.models.load import load_model
from oar_core.models.model import Model
from server.worker import render
from server.worker.render import MOST_JOBS, FinishedTokens, Renderer, render_jobs, render_pngs

WEIGHTS = Path(__file__).parents[2] / "weights"


@pytest.fixture(scope="module")
def pipeline() -> Model:
    return load_model(WEIGHTS / "sprites-64", "cpu", torch.float32)


def drawn(pipeline: Model, count: int) -> FinishedTokens:
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(pipeline.tokenizer.vocab_size, (count, 64), generator=generator)
    return FinishedTokens(ids.tolist())


def test_jobs_that_are_decoded_together_get_their_own_pictures(pipeline: Model) -> None:
    jobs = [drawn(pipeline, count) for count in (1, 3, 2)]
    together = render_jobs(pipeline, jobs)
    assert [len(pngs) for pngs in together] == [1, 3, 2]
    for job, pngs in zip(jobs, together):
        for png, alone in zip(pngs, render_pngs(pipeline, job.token_ids)):
            # Sums are added up in another sequence: a value that lies between two bytes may fall to either.
            assert np.abs(pixels(png) - pixels(alone)).max() <= 1


def test_a_pass_through_the_decoder_has_a_bound(pipeline: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [drawn(pipeline, 3) for _ in range(3)]
    whole = render_jobs(pipeline, jobs)
    monkeypatch.setattr(render, "MOST_PICTURES", 4)
    sizes = decoded_sizes(monkeypatch)
    parts = render_jobs(pipeline, jobs)
    assert sizes == [4, 4, 1]
    for one, other in zip(
        (png for pngs in whole for png in pngs), (png for pngs in parts for png in pngs), strict=True
    ):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1


@pytest.mark.anyio
@pytest.mark.parametrize(("is_deterministic", "most"), [(False, MOST_JOBS), (True, 1)])
async def test_a_deterministic_renderer_decodes_every_job_by_itself(
    pipeline: Model, monkeypatch: pytest.MonkeyPatch, is_deterministic: bool, most: int
) -> None:
    sizes = decoded_sizes(monkeypatch)
    renderer = Renderer(is_deterministic=is_deterministic)
    job = drawn(pipeline, 1)
    answers = await asyncio.gather(*(renderer.finish(pipeline, job.token_ids) for _ in range(MOST_JOBS + 1)))
    renderer.close()
    assert len({png for pngs in answers for png in pngs}) == 1
    assert max(sizes) == most
    assert sum(sizes) == MOST_JOBS + 1


def decoded_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the batches that are decoded from now on."""
    sizes: list[int] = []
    decode = Model.decode

    def counted(self: Model, token_ids: torch.Tensor) -> np.ndarray:
        sizes.append(len(token_ids))
        return decode(self, token_ids)

    monkeypatch.setattr(Model, "decode", counted)
    return sizes


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)), dtype=int)
