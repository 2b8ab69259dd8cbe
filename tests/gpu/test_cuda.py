"""The same equivalences on a CUDA device. Skipped where there is none."""

import pytest
import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.models.base import Condition
from oar_core.models.oar.backbone import OarBackbone
from oar_core.sampling.generate import generate
from tests.engine.backbones import TINY, UNCONDITIONAL, tiny_backbone
from tests.engine.requests import diverse_requests, made_by, make_request

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def backbone() -> OarBackbone:
    return tiny_backbone().to("cuda")


def test_training_logits_equal_those_of_the_cpu(backbone: OarBackbone) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (3, TINY.num_tokens)
    token_ids = torch.randint(TINY.vocab_size, shape, generator=generator)
    positions = torch.rand(shape, generator=generator).argsort(-1)
    condition = Condition.stack([(1,), (1, 2, 3), (2, 3)], torch.device("cpu"))
    on_cuda = backbone(Condition(condition.ids.cuda(), condition.lengths), token_ids.cuda(), positions.cuda())
    on_cpu = tiny_backbone()(condition, token_ids, positions)
    torch.testing.assert_close(on_cuda.cpu(), on_cpu, atol=2e-4, rtol=1e-3)


def test_the_engine_equals_the_reference_loop(backbone: OarBackbone) -> None:
    requests = diverse_requests(16)
    engine = Engine(backbone, UNCONDITIONAL, EngineConfig(num_slots=32))
    alone = {request.id: generate(backbone, [request], UNCONDITIONAL)[0] for request in requests}
    assert made_by(engine, requests) == alone


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # by torch's own compiler
def test_the_compiled_draw_equals_the_plain_one(backbone: OarBackbone) -> None:
    requests = diverse_requests(16)
    plain, compiled = (
        Engine(backbone, UNCONDITIONAL, EngineConfig(num_slots=32, is_compiled=flag)) for flag in (False, True)
    )
    assert made_by(compiled, requests) == made_by(plain, requests)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("is_compiled", [False, True])
def test_captured_steps_equal_the_reference_loop(backbone: OarBackbone, is_compiled: bool) -> None:
    """All graphs are captured before the first picture, and later ones read what earlier ones wrote."""
    requests = [
        make_request(number, order=order, steps=steps)
        for number, (order, steps) in enumerate(
            (order, steps) for order in ("raster", "halton") for steps in (5, 9, None)
        )
    ]
    engine = Engine(backbone, UNCONDITIONAL, EngineConfig(num_slots=6, is_static=True, is_compiled=is_compiled))
    alone = {request.id: generate(backbone, [request], UNCONDITIONAL)[0] for request in requests}
    assert made_by(engine, requests) == alone
