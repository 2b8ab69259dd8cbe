"""One decode step of fixed shape over buffers that stay where they are, so that a CUDA graph can replay it.

Rows of the step are the first slots of the cache, in use or not. A slot that takes no part is a row of pads: what it
would write goes to a scratch slot behind all others, and what it answers is dropped. Picture i of a step has queries
`i * group` and following; pictures beyond the last are pads too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from oar_core.engine.buckets import Bucket
from oar_core.models.base import StaticBackbone
from oar_core.nn.kv_cache import FixedWindow, KVCache
from oar_core.sampling.decode import DecodedGroup, DecodeRow, query_logits
from oar_core.sampling.draw import Draw
from oar_core.sampling.sampler import SamplingRows

Work = Callable[[], Tensor]
Capture = Callable[[Work], Work]


@dataclass(frozen=True)
class StepField:
    name: str
    shape: tuple[int, ...]
    pad: float


class Buffers:
    """Named tables in one piece of memory on the host, and the same on the device: one copy moves them all."""

    def __init__(self, fields: Sequence[StepField], dtype: torch.dtype, device: torch.device) -> None:
        sizes = [int(np.prod(field.shape)) for field in fields]
        self._host = torch.zeros(sum(sizes), dtype=dtype, pin_memory=device.type == "cuda")
        self._device = torch.zeros(sum(sizes), dtype=dtype, device=device)
        ends = np.cumsum(sizes)
        flat = self._host.numpy()
        self.host = {f.name: flat[end - size : end].reshape(f.shape) for f, end, size in zip(fields, ends, sizes)}
        self.device = {
            f.name: self._device[end - size : end].view(f.shape) for f, end, size in zip(fields, ends, sizes)
        }
        self._pads = {field.name: field.pad for field in fields}

    def clear(self) -> None:
        for name, table in self.host.items():
            table.fill(self._pads[name])

    def move(self) -> None:
        self._device.copy_(self._host, non_blocking=True)


class StaticStep:
    """The step of one bucket. `capture` makes of a piece of work what repeats it: a graph's replay, or itself."""

    def __init__(
        self, backbone: StaticBackbone, cache: KVCache, bucket: Bucket, scratch: int, capture: Capture, draw: Draw
    ) -> None:
        self._backbone, self._cache, self._bucket, self._draw = backbone, cache, bucket, draw
        rows, group = bucket.rows, bucket.group
        vocab_size, device = backbone.spec.vocab_size, cache.keys.device
        self._ints = Buffers(
            [
                StepField("commit_token_ids", (rows, group), 0),
                StepField("commit_positions", (rows, group), 0),
                StepField("slots", (rows, group), scratch),
                StepField("entries", (rows, group), 0),
                StepField("limits", (rows, group), 1),
                StepField("lengths", (rows,), 1),
                StepField("row_queries", (rows, group), 0),
                StepField("queries", (rows, group), 0),
                StepField("conditional", (rows, group), 0),
                StepField("unconditional", (rows, group), 0),
                StepField("noise_keys", (rows,), 0),
                StepField("top_k", (rows,), vocab_size),
            ],
            torch.int64,
            device,
        )
        self._reals = Buffers(
            [StepField(name, (rows,), 1.0) for name in ("temperature", "top_p", "guidance")], torch.float32, device
        )
        self._owners = torch.arange(rows, device=device).repeat_interleave(group)
        self._told = torch.zeros(3 * rows * group, pin_memory=device.type == "cuda")
        self._ints.clear()
        self._reals.clear()
        self._move()
        self._run = capture(self._work)

    def decode(self, rows: Sequence[DecodeRow]) -> list[DecodedGroup]:
        """One group of each row. All fit into the bucket, and their slots lie within its rows."""
        self._fill(rows)
        self._move()
        told = self._answer().reshape(3, self._bucket.rows, self._bucket.group)
        groups: list[DecodedGroup] = []
        for index, row in enumerate(rows):
            positions, token_ids, confidences = told[:, index, : row.take]
            ids = tuple(map(int, positions)), tuple(map(int, token_ids))
            groups.append(DecodedGroup(*ids, tuple(map(float, confidences))))
        return groups

    def _answer(self) -> Float[np.ndarray, "_"]:
        """Brought into pinned memory, which the device writes by itself: the one wait of a step."""
        told = self._run()
        self._told.copy_(told, non_blocking=True)
        if told.is_cuda:
            torch.cuda.current_stream(told.device).synchronize()
        return self._told.numpy()

    def _move(self) -> None:
        self._ints.move()
        self._reals.move()

    def _fill(self, rows: Sequence[DecodeRow]) -> None:
        self._ints.clear()
        self._reals.clear()
        ints, reals, group = self._ints.host, self._reals.host, self._bucket.group
        for index, row in enumerate(rows):
            for slot in row.slots.all:
                self._fill_slot(slot, row)
            first, last = row.slots.all[0], row.slots.all[-1]
            ints["queries"][index, : row.take] = row.query
            # A row without guidance stands in for its own pair, which leaves its logits bit for bit.
            ints["conditional"][index] = np.arange(first * group, (first + 1) * group)
            ints["unconditional"][index] = np.arange(last * group, (last + 1) * group)
            ints["noise_keys"][index] = row.noise_key
            ints["top_k"][index] = min(row.sampling.top_k or self._vocab_size, self._vocab_size)
            for name in reals:
                reals[name][index] = getattr(row.sampling, name)

    def _fill_slot(self, slot: int, row: DecodeRow) -> None:
        ints, count, start = self._ints.host, len(row.commit_positions), int(self._cache.lengths[slot])
        entries = np.arange(start, start + count)
        ints["commit_token_ids"][slot, :count] = row.commit_token_ids
        ints["commit_positions"][slot, :count] = row.commit_positions
        ints["slots"][slot, :count] = slot
        ints["entries"][slot, :count] = entries
        # What each sees of its step: those before it and itself, unless its family's commits see more.
        seen = np.arange(1, count + 1) if row.commit_seen is None else np.asarray(row.commit_seen)
        ints["limits"][slot, :count] = start + seen
        ints["lengths"][slot] = start + count
        ints["row_queries"][slot, : row.take] = row.query
        self._cache.lengths.numpy()[slot] = start + count

    @property
    def _vocab_size(self) -> int:
        return self._backbone.spec.vocab_size

    @torch.inference_mode()
    def _work(self) -> Float[Tensor, "_"]:
        """Positions, token ids and confidences of all queries, pads included. Waits for nothing."""
        ints, reals = self._ints.device, self._reals.device
        rows, extent = self._bucket.rows, self._bucket.extent
        window = FixedWindow(
            self._cache, rows, extent, ints["limits"], ints["slots"].flatten(), ints["entries"].flatten()
        )
        memory = FixedWindow(self._cache, rows, extent, ints["lengths"][:, None])
        logits = self._backbone.static_step(
            ints["commit_token_ids"].flatten(),
            ints["commit_positions"].flatten(),
            window,
            ints["row_queries"].flatten(),
            memory,
        )
        params = SamplingRows(
            reals["temperature"], ints["top_k"], reals["top_p"], reals["guidance"], num_ranked=self._vocab_size
        )
        return query_logits(
            logits.float(),
            ints["conditional"].flatten(),
            ints["unconditional"].flatten(),
            ints["queries"].flatten(),
            self._owners,
            params,
            ints["noise_keys"],
            self._draw,
        )


def repeat(work: Work) -> Work:
    """No graph: the work itself, over the same buffers."""
    return work


class Graphs:
    """Makes CUDA graphs of one device that share their memory: one runs at a time, and its results are read before the
    next. Never run on a GPU so far: `tests/gpu` has its tests."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream()  # one, since each keeps a workspace of its own

    def __call__(self, work: Work) -> Work:
        """A graph of the work, after runs that let kernels be chosen and memory be taken."""
        with torch.cuda.device(self._device):
            return self._captured(work)

    def _captured(self, work: Work) -> Work:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                work()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            told = work()

        def replay() -> Tensor:
            with torch.cuda.device(self._device):
                graph.replay()
            return told

        return replay
