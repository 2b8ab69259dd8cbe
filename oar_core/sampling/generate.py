"""The reference loop: prefill, then decode steps until every picture is complete. The engine equals it."""

from collections.abc import Callable, Sequence
from itertools import count

import torch

from oar_core.models.base import Backbone
from oar_core.sampling.decode import Slots, decode_step
from oar_core.sampling.prefill import prefill
from oar_core.sampling.progress import Patch, begin_picture
from oar_core.sampling.request import SequenceRequest

OnStep = Callable[[int, int, int, tuple[Patch, ...]], None]  # index of the request, step from 1, steps, patches


@torch.inference_mode()
def generate(
    backbone: Backbone,
    requests: Sequence[SequenceRequest],
    unconditional_ids: tuple[int, ...],
    *,
    on_step: OnStep | None = None,
    on_revision: OnStep | None = None,
) -> list[tuple[int, ...]]:
    """Makes all the requested pictures together; returns the tokens of each in grid order, known ones included.

    `unconditional_ids` is the condition prefix that guidance steers away from. `on_revision` is told of the steps that
    draw tokens of whole pictures again. Raises a RequestError before any work where a request cannot be served.
    """
    pictures = [begin_picture(request, backbone) for request in requests]
    if not pictures:
        return []
    free = count()
    slots = [Slots(next(free), next(free) if request.sampling.is_guided else None) for request in requests]
    cache = backbone.new_cache(next(free))
    while True:
        begun = [index for index, picture in enumerate(pictures) if picture.needs_prefill]
        rows = [pictures[index].prefill_rows(slots[index], unconditional_ids) for index in begun]
        if rows:
            prefill(backbone, cache, [row for pair in rows for row in pair])
        active = [index for index, picture in enumerate(pictures) if not picture.is_complete]
        if not active:
            break
        groups = decode_step(backbone, cache, [pictures[index].next_row(slots[index]) for index in active])
        for index, group in zip(active, groups):
            picture, step = pictures[index], pictures[index].schedule.step
            patches = picture.accept(group)
            tell = on_revision if picture.is_revising else on_step
            if tell is not None:
                tell(index, step, picture.steps, patches)
            if picture.is_complete:
                picture.begin_revision()
    return [picture.tokens.by_position for picture in pictures]
