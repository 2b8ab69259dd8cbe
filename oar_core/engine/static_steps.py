"""The static steps of an engine, one for each bucket, and which of them a step's rows fit into."""

from collections.abc import Sequence

import torch

from oar_core.engine.buckets import Bucket, Buckets
from oar_core.engine.static_step import Graphs, StaticStep, repeat
from oar_core.models.base import StaticBackbone
from oar_core.nn.kv_cache import KVCache
from oar_core.order.rules import FIXED
from oar_core.sampling.decode import DecodedGroup, DecodeRow, StepLoad
from oar_core.sampling.draw import Draw, plain_draw


class StaticSteps:
    """Serves rows of fixed orders and group sizes; others take the ordinary way. The cache's last slot is scratch.

    On CUDA every step is a graph and all are captured here, which is part of loading: never run on a GPU so far. On a
    CPU they are the same steps without graphs, made when they are first asked for, for tests.
    """

    def __init__(self, backbone: StaticBackbone, cache: KVCache, draw: Draw = plain_draw) -> None:
        self._backbone, self._cache, self._scratch, self._draw = backbone, cache, cache.num_slots - 1, draw
        self._buckets = Buckets.plan(self._scratch, backbone.spec.num_tokens, cache.capacity)
        self._capture = Graphs(cache.keys.device) if cache.keys.is_cuda else repeat
        self._steps: dict[Bucket, StaticStep] = {}
        for bucket in self._buckets.all() if cache.keys.is_cuda else ():
            self._step(bucket)

    @torch.inference_mode()
    def decode(self, rows: Sequence[DecodeRow], load: StepLoad) -> list[DecodedGroup] | None:
        """None where no bucket holds these rows."""
        bucket = self._bucket(rows)
        if bucket is None:
            return None
        asked = sum(row.take * len(row.slots.all) for row in rows)
        load.slots += sum(len(row.slots.all) for row in rows)
        load.positions += bucket.rows * bucket.group
        load.pads += bucket.rows * bucket.group - asked
        return self._step(bucket).decode(rows)

    def _bucket(self, rows: Sequence[DecodeRow]) -> Bucket | None:
        if not all(map(_is_plain, rows)):
            return None
        slots = [slot for row in rows for slot in row.slots.all]
        group = max(max(len(row.commit_positions), row.take) for row in rows)
        extent = max(int(self._cache.lengths[s]) + len(row.commit_positions) for row in rows for s in row.slots.all)
        return self._buckets.least(max(slots) + 1, group, extent)

    def _step(self, bucket: Bucket) -> StaticStep:
        if bucket not in self._steps:
            self._steps[bucket] = StaticStep(
                self._backbone, self._cache, bucket, self._scratch, self._capture, self._draw
            )
        return self._steps[bucket]


def _is_plain(row: DecodeRow) -> bool:
    """Tells whether its order and group size are fixed, the group has one guidance, it is told draws alone, and it
    neither prefills nor catches up with guidance."""
    is_uniform = row.entropy_bound is None and row.scales is None and not row.has_surprises
    return row.rule is FIXED and is_uniform and bool(row.query) and not any(row.held)
