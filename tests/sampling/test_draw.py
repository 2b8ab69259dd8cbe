"""The compiled draw gives the tokens of the plain one, at any number of queries, without being compiled again."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch._dynamo.utils import counters

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.sampling.draw import CompiledDraw, plain_draw
from oar_core.sampling.generate import generate
from oar_core.sampling.sampler import SamplingParams, SamplingRows
from tests.engine.backbones import UNCONDITIONAL, tiny_backbone
from tests.engine.requests import diverse_requests, made_by

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning"),  # by torch's own compiler
]
VOCAB = 96
CPU = torch.device("cpu")
WISHES = (
    SamplingParams(),
    SamplingParams(top_p=0.8),
    SamplingParams(top_k=5, temperature=0.7),
    SamplingParams(temperature=0.0, top_k=20, top_p=0.9),
)


@pytest.fixture(scope="module")
def compiled() -> CompiledDraw:
    return CompiledDraw(VOCAB, CPU)


def logits_of(count: int) -> Float[Tensor, "Q V"]:
    return 3 * torch.randn(count, VOCAB, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 64, 257])
@pytest.mark.parametrize("wishes", [WISHES[:1], WISHES[1:2], WISHES[2:3], WISHES])
def test_the_compiled_draw_equals_the_plain_one(
    compiled: CompiledDraw, count: int, wishes: tuple[SamplingParams, ...]
) -> None:
    owners = torch.arange(count) % len(wishes)
    arguments = (
        logits_of(count),
        torch.arange(count) % 64,
        torch.arange(count) * 0x1234567_89ABCDE,
        SamplingRows.stack(wishes, VOCAB, CPU).of_queries(owners),
    )
    with torch.inference_mode():
        drawn, expected = compiled(*arguments), plain_draw(*arguments)
    assert torch.equal(drawn.token_ids, expected.token_ids)
    torch.testing.assert_close(drawn.confidences, expected.confidences)


@pytest.fixture
def no_more(compiled: CompiledDraw) -> Iterator[None]:
    """Whatever would be compiled from now on is an error."""
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


@pytest.mark.usefixtures("no_more")
@torch.inference_mode()
def test_nothing_is_compiled_once_pictures_come(compiled: CompiledDraw) -> None:
    before = counters["stats"]["unique_graphs"]
    for count in (0, 1, 5, VOCAB, 1000):
        for wishes in (WISHES[:2], WISHES[2:]):
            rows = SamplingRows.stack(wishes, VOCAB, CPU).of_queries(torch.arange(count) % 2)
            drawn = compiled(logits_of(count), torch.arange(count), torch.arange(count), rows)
            assert len(drawn.token_ids) == len(drawn.confidences) == count
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.usefixtures("no_more")
@pytest.mark.parametrize("is_static", [False, True])
def test_the_engine_makes_the_pictures_that_generate_makes(is_static: bool) -> None:
    requests = diverse_requests(24)
    engine = Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(num_slots=12, is_static=is_static, is_compiled=True))
    assert made_by(engine, requests) == {
        request.id: generate(tiny_backbone(), [request], UNCONDITIONAL)[0] for request in requests
    }


@pytest.mark.slow
def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    program = (
        f"import torch; from oar_core.sampling.draw import CompiledDraw; CompiledDraw({VOCAB}, torch.device('cpu'))"
    )
    env = os.environ | {"CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("oar_core.errors.ConfigError: the draw cannot be compiled here:")
    assert "/nowhere/c++" in last
