"""Previews where the image tokenizer has no code for unknown positions: the backbone's expectation stands there."""

import asyncio
import base64
import io
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from oar_core.engine.events import EngineEvent
from oar_core.sampling.expectation import Expectation
from oar_core.weights import write_manifest
from server.jobs.log import Claim
from server.settings import Settings
from server.worker.engine_thread import Add, EngineThread, Expect, Expected, Stop
from server.worker.models import LoadedModel, load_models
from server.worker.previews import Expectations
from server.worker.render import render_previews
from server.worker.running import RunningJob
from tests.models.folders import NUM_TOKENS, write_golden_model
from tests.server.jobs.protocol import params
from tests.server.tiny import NAME, write_tiny_weights
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.anyio

FAMILY = "arpg"
PARAMS = params(model=FAMILY, prompt="hen", n=1, steps=8, order="raster", guidance=3.0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    write_golden_model(FAMILY, folder / FAMILY)
    write_manifest(folder, NAME, dict.fromkeys((NAME, FAMILY), "MIT"))
    return folder


@pytest.fixture
def model(weights: Path, tmp_path: Path) -> LoadedModel:
    (model,) = load_models(Settings(weights_dir=weights, data_dir=tmp_path, models=(FAMILY,), calibrate=False))
    return model


def job_of(**changes: Any) -> RunningJob:
    values = {
        "epoch": 1,
        "attempt": 1,
        "seq": 2,
        "age": 0,
        "base": 0,
        "begins_again": False,
        "params": PARAMS,
    } | changes
    return RunningJob.begin(Claim("gen-1", FAMILY, **values))


@pytest.mark.running
async def test_a_running_picture_is_guessed_between_two_steps(model: LoadedModel) -> None:
    entered, go_on, step = threading.Event(), threading.Event(), model.engine.step

    def held_step() -> list[EngineEvent]:
        entered.set()
        assert go_on.wait(HANG_SECONDS)
        return step()

    model.engine.step = held_step  # type: ignore[method-assign]
    thread = EngineThread({FAMILY: model.engine}, lambda _report: None)
    expectations, job = Expectations({FAMILY: model}, thread.send), job_of()
    (request,) = job.requests(model.pipeline)
    thread.send(Add(FAMILY, request))
    waiting = asyncio.create_task(expectations.of(job, 0))
    await asyncio.sleep(0)
    thread.start()
    async with asyncio.timeout(HANG_SECONDS):
        assert await waiting is None, "it has not begun"
        await asyncio.to_thread(entered.wait)
        asked = [asyncio.create_task(expectations.of(job, 0)) for _ in range(2)]
        dropped = asyncio.create_task(expectations.of(job, 0))
        await asyncio.sleep(0)
        dropped.cancel()
        go_on.set()
        answers = [await task for task in asked]
    thread.send(Stop())
    await asyncio.to_thread(thread.join)
    for expectation in answers:
        assert expectation is not None
        assert expectation.positions == tuple(range(1, NUM_TOKENS)), "the first step drew one"
    assert expectations.seconds > 0


async def test_nothing_is_asked_where_the_tokenizer_knows_what_unknown_is(weights: Path, tmp_path: Path) -> None:
    (native,) = load_models(Settings(weights_dir=weights, data_dir=tmp_path, models=(NAME,), calibrate=False))
    sent: list[Expect] = []
    expectations = Expectations({FAMILY: native}, sent.append)
    assert await expectations.of(job_of(), 0) is None
    assert not sent


async def test_a_preview_shows_what_is_known_and_else_what_is_expected(model: LoadedModel) -> None:
    job = job_of()
    job.pictures[0].add([0, 1], [5, 6])
    expectation = Expectation(tuple(range(1, NUM_TOKENS)), (7,) * (NUM_TOKENS - 1))
    shown, neutral = render_previews(model.pipeline, [job.snapshot(0, 0, expectation), job.snapshot(0, 0)])
    wanted = model.pipeline.decode(torch.tensor([[5, 6, *[7] * (NUM_TOKENS - 2)]]))[0]
    assert shown.known == neutral.known == 2
    assert np.array_equal(pixels(shown.data), wanted)
    assert not np.array_equal(pixels(neutral.data), wanted)


async def test_an_engine_answers_nobody_who_has_gone(model: LoadedModel) -> None:
    thread = EngineThread({FAMILY: model.engine}, lambda _report: None)
    gone, there = Future[Expected](), Future[Expected]()
    gone.cancel()
    for answer in (gone, there):
        thread.send(replace(Expect(FAMILY, "gen-1/1/0"), answer=answer))
    thread.send(Stop())
    thread.start()
    assert there.result(HANG_SECONDS).expectation is None
    thread.join()


def pixels(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
