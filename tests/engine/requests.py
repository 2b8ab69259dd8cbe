"""Requests that differ in everything, and what becomes of them."""

from oar_core.config import BackboneConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import SequenceFinished
from oar_core.order.paths import PATHS
from oar_core.order.plan import GROUP_SIZES, PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.progress import Patch
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.engine.backbones import TINY, UNCONDITIONAL

NAMED_ORDERS = (*PATHS, "random", "locality", "spaced", "confidence", "likelihood", "distilled", "shortlist")
CUSTOM_ORDER = tuple((7 * rank + 3) % TINY.num_tokens for rank in range(TINY.num_tokens))
ORDERS = (*NAMED_ORDERS, CUSTOM_ORDER)


NOTHING_KNOWN = KnownTokens()


def make_request(index: int = 0, *, known: KnownTokens = NOTHING_KNOWN, **plan: object) -> SequenceRequest:
    return SequenceRequest(
        id=f"picture-{index}",
        condition_ids=(1 + index % 7, 2, 3)[: 1 + index % 3],
        seed=1000 + index,
        image_index=index % 2,
        plan=PlanSpec(**plan),  # type: ignore[arg-type]
        sampling=SamplingParams(
            temperature=(1.0, 0.7, 0.0, 1.3)[index % 4],
            top_k=(0, 5, 0)[index % 3],
            top_p=(1.0, 1.0, 0.9, 1.0, 0.5)[index % 5],
            guidance=(1.0, 2.5, 0.0)[index % 3],
        ),
        known=known,
        negative_ids=(5, 6) if index % 6 == 4 else None,
    )


def diverse_requests(count: int, config: BackboneConfig = TINY) -> list[SequenceRequest]:
    """Different orders, steps, group sizes, sampling, guidance and known tokens side by side."""
    return [
        make_request(
            index,
            order=ORDERS[index % len(ORDERS)],
            steps=(None, 5, 1, 9, config.num_tokens)[index % 5],
            group_sizes=GROUP_SIZES[index // 3 % 4],
            known=KnownTokens((4, 11, 2), (1, 0, 9)) if index % 4 == 3 else KnownTokens(),
        )
        for index in range(count)
    ]


def decoded_patches(backbone, request: SequenceRequest) -> list[Patch]:
    """All the patches of one picture made alone, in decode order."""
    patches: list[Patch] = []
    generate(backbone, [request], UNCONDITIONAL, on_step=lambda index, step, steps, new: patches.extend(new))
    return patches


def made_by(engine: Engine, requests: list[SequenceRequest]) -> dict[str, tuple[int, ...]]:
    """Token ids of every picture by its sequence's id, all begun at once."""
    for request in requests:
        engine.add(request)
    made: dict[str, tuple[int, ...]] = {}
    while engine.has_work:
        made |= {event.sequence_id: event.token_ids for event in engine.step() if isinstance(event, SequenceFinished)}
    return made
