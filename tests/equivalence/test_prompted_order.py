"""Orders that a prompt decides: a picture that was interrupted anywhere goes on as if it had never stopped."""

import dataclasses

import pytest

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import PatchesDecoded, PatchesRevised, SequenceFinished
from oar_core.order.plan import PROMPTED
from oar_core.sampling.progress import Patch
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.engine.backbones import PROMPTED_ORDERS, UNCONDITIONAL, tree_backbone
from tests.engine.requests import make_request

GIVEN = KnownTokens((13, 0, 6), (7, 7, 7))


def run(request: SequenceRequest) -> tuple[list[tuple[Patch, ...]], list[tuple[Patch, ...]], tuple[int, ...]]:
    """What each step of the plan decoded, what each of the revision drew, and the picture, from an engine."""
    engine = Engine(tree_backbone(), UNCONDITIONAL, EngineConfig(4))
    engine.add(request)
    decoded: list[tuple[Patch, ...]] = []
    redrawn: list[tuple[Patch, ...]] = []
    picture: tuple[int, ...] = ()
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, PatchesDecoded):
                decoded.append(event.patches)
            elif isinstance(event, PatchesRevised):
                redrawn.append(event.patches)
            elif isinstance(event, SequenceFinished):
                picture = event.token_ids
    return decoded, redrawn, picture


@pytest.mark.parametrize("revise", [0, 5])
@pytest.mark.parametrize("known", [KnownTokens(), GIVEN], ids=["picture", "edit"])
@pytest.mark.parametrize(("condition", "order"), list(zip([(5,), (5, 2)], PROMPTED_ORDERS, strict=True)))
def test_a_picture_goes_on_after_each_step(
    condition: tuple[int, ...], order: tuple[int, ...], known: KnownTokens, revise: int
) -> None:
    request = dataclasses.replace(
        make_request(1, order=PROMPTED, steps=6, known=known, revise=revise),
        condition_ids=condition,
        sampling=SamplingParams(guidance=2.5),
        negative_ids=(2, 6),  # decides nothing
    )
    decoded, redrawn, picture = run(request)
    positions = [patch.position for patches in decoded for patch in patches]
    assert positions == [position for position in order if position not in known.positions]
    assert sum(map(len, redrawn)) == revise
    moments = [(cut, 0) for cut in range(len(decoded) + 1)]
    moments += [(len(decoded), cut) for cut in range(1, len(redrawn) + 1)]
    for cut, revised in moments:
        done = [patch for patches in decoded[:cut] for patch in patches]
        resumed = KnownTokens(
            (*known.positions, *(patch.position for patch in done)),
            (*known.token_ids, *(patch.token_id for patch in done)),
            num_resumed=len(done),
            num_steps=cut,
            surprises=tuple(patch.surprise or 0.0 for patch in done) if revise else (),
            redrawn=tuple(patch.token_id for patches in redrawn[:revised] for patch in patches),
        )
        rest, rest_redrawn, whole = run(dataclasses.replace(request, known=resumed))
        assert whole == picture
        assert [[patch.position for patch in patches] for patches in rest] == [
            [patch.position for patch in patches] for patches in decoded[cut:]
        ]
        assert [patch.token_id for patches in rest_redrawn for patch in patches] == [
            patch.token_id for patches in redrawn[revised:] for patch in patches
        ]
