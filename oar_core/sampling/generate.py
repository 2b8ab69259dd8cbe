"""The reference loop: prefill, then decode steps until every picture is complete. The engine equals it."""

from collections.abc import Callable, Sequence
from itertools import count

import torch

from oar_core.models.base import Backbone
from oar_core.sampling.decode import Slots, decode_step
from oar_core.sampling.prefill import prefill
from oar_core.sampling.progress import Patch, Progress
from oar_core.sampling.request import SequenceRequest

OnStep = Callable[[int, int, int, tuple[Patch, ...]], None]  # index of the request, step from 1, steps, patches


@torch.inference_mode()
def generate(
    backbone: Backbone,
    requests: Sequence[SequenceRequest],
    unconditional_ids: tuple[int, ...],
    *,
    on_step: OnStep | None = None,
) -> list[tuple[int, ...]]:
    """Makes all the requested pictures together; returns the tokens of each in grid order, known ones included.

    `unconditional_ids` is the condition prefix that guidance steers away from. Raises a RequestError before any work
    where a request cannot be served.
    """
    pictures = [Progress(request, backbone.spec, has_policy=backbone.has_policy) for request in requests]
    if not pictures:
        return []
    free = count()
    slots = [Slots(next(free), next(free) if request.sampling.is_guided else None) for request in requests]
    cache = backbone.new_cache(next(free))
    rows = [picture.prefill_rows(pair, unconditional_ids) for picture, pair in zip(pictures, slots)]
    prefill(backbone, cache, [row for pair in rows for row in pair])
    while active := [index for index, picture in enumerate(pictures) if not picture.is_complete]:
        groups = decode_step(backbone, cache, [pictures[index].next_row(slots[index]) for index in active])
        for index, group in zip(active, groups):
            step = pictures[index].step
            patches = pictures[index].accept(group)
            if on_step is not None:
                on_step(index, step, pictures[index].steps, patches)
    return [picture.grid_token_ids for picture in pictures]
