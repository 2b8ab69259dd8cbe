"""One call of each part of a picture, for measurements of one part alone."""

import io
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor, nn

from oar_core.engine.model_runner import fastest
from oar_core.models.base import Commit, Query
from oar_core.models.model import to_pixels
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.oar.vqgan import VQGAN
from oar_core.nn.packed import Int8Linear, PackedLinear
from oar_core.order.rules import FIXED
from oar_core.sampling.decode import DecodeRow, Slots, decode_step
from oar_core.sampling.guidance import guide
from oar_core.sampling.prefill import PrefillRow, prefill
from oar_core.sampling.sampler import SamplingRows
from oar_lab.bench.counts import Work, commit_work, decode_work, prefill_work, query_work, sampling_work
from oar_lab.bench.subject import Subject


class PictureParts:
    """A cache of `batch` guided pictures half-way through their ranks, and one call of each part."""

    def __init__(self, subject: Subject, batch: int, steps: int) -> None:
        config = cast(OarBackbone, subject.backbone).config
        self.subject, self.batch, self.steps = subject, batch, steps
        self.backbone = cast(OarBackbone, fastest(subject.backbone))
        self.group = max(1, round(config.num_tokens / steps))
        self.known = config.num_tokens // 2
        texts = [subject.prompts[picture % len(subject.prompts)] for picture in range(batch)]
        self.conditions = [ids for text in texts for ids in (text, subject.unconditional_ids)]
        self.cache = subject.backbone.new_cache(2 * batch)
        self.slots = torch.arange(2 * batch)
        self.logits = torch.randn(batch * self.group, config.vocab_size, device=subject.device)
        token_ids = torch.randint(config.vocab_size, (1, config.num_tokens), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            self.pixels = to_pixels(subject.tokenizer.decode(token_ids.to(subject.device)))[0]
        self.prefill(self.known)
        self.products = linear_calls(self.backbone, self.step)

    def parts(self) -> list[tuple[str, int, Work, bool, Callable[[], object]]]:
        """Name, calls a picture (0: detail of another), work, whether it runs in fp32 always, and one call."""
        config, size = cast(OarBackbone, self.subject.backbone).config, self.subject.dtype.itemsize
        rows, lengths = 2 * self.batch, [len(ids) for ids in self.conditions]
        entries = round(sum(lengths) / rows) + self.known
        commit = commit_work(config, rows, self.group, entries, size)
        query = query_work(config, rows, self.group, entries, size)
        linear = commit_work(config, rows, self.group, 0, size) + query_work(config, rows, self.group, 0, size)
        sampling = sampling_work(config, rows, self.group)
        picture = Work(0, self.pixels.nbytes)
        return [
            ("prefill", 1, prefill_work(config, lengths, size), False, lambda: self.prefill(0)),
            ("step", self.steps, commit + query + sampling, False, self.step),
            ("of it: commit", 0, commit, False, self.commit),
            ("of it: query", 0, query, False, self.query),
            ("of it: linear layers", 0, linear, False, self.multiply),
            ("of it: sampling", 0, sampling, True, self.sample),
            ("decode", 1, decode_work(cast(VQGAN, self.subject.tokenizer).config, self.batch), True, self.decode),
            ("PNG", self.batch, picture, True, lambda: encode(self.pixels, "PNG")),
            ("WebP", 0, picture, True, lambda: encode(self.pixels, "WEBP")),
        ]

    def prefill(self, known: int) -> None:
        positions = range(known)
        rows = [PrefillRow(slot, ids, positions, [0] * known) for slot, ids in enumerate(self.conditions)]
        prefill(self.backbone, self.cache, rows)

    def step(self) -> None:
        self._half_way()
        new, query = self._positions()
        rows = [
            DecodeRow(
                Slots(2 * picture, 2 * picture + 1),
                new,
                [0] * self.group,
                query,
                self.group,
                FIXED,
                self.subject.sampling,
                picture,
            )
            for picture in range(self.batch)
        ]
        decode_step(self.backbone, self.cache, rows, draw=self.subject.draw)

    def commit(self) -> None:
        self._half_way()
        positions = self._table(self._positions()[0])
        counts = torch.full((len(positions),), self.group)
        nothing = Query.grid(positions[:, :0])
        self.backbone.step(self.cache, self.slots, Commit(torch.zeros_like(positions), positions, counts), nothing)

    def query(self) -> None:
        self._half_way()
        positions = self._table(self._positions()[1])
        nothing = Commit(positions[:, :0], positions[:, :0], torch.zeros(len(positions), dtype=torch.long))
        self.backbone.step(self.cache, self.slots, nothing, Query.grid(positions))

    @torch.inference_mode()
    def multiply(self) -> None:
        """All linear layers of a step, one after another, and nothing between them."""
        for layer, x in self.products:
            layer(x)

    @torch.inference_mode()
    def sample(self) -> None:
        """Guidance, truncation, noise, draw and confidence."""
        count, vocab_size = self.logits.shape
        params = SamplingRows.stack([self.subject.sampling] * count, vocab_size, self.logits.device)
        logits = guide(self.logits[:, None], self.logits[:, None], params.guidance).squeeze(1)
        places = torch.arange(count, device=self.logits.device)
        self.subject.draw(logits, places, places.clone(), params.of_queries(places)).confidences.cpu()

    @torch.inference_mode()
    def decode(self) -> None:
        token_ids = torch.zeros(self.batch, self.subject.backbone.spec.num_tokens, dtype=torch.long)
        to_pixels(self.subject.tokenizer.decode(token_ids.to(self.subject.device)))

    def _half_way(self) -> None:
        """Fills the cache to half of the ranks, with any entries."""
        self.cache.lengths.copy_(torch.tensor([len(ids) + self.known - self.group for ids in self.conditions]))

    def _positions(self) -> tuple[list[int], list[int]]:
        return [*range(self.known - self.group, self.known)], [*range(self.known, self.known + self.group)]

    def _table(self, positions: list[int]) -> Int[Tensor, "B G"]:
        return torch.tensor([positions] * len(self.slots), device=self.subject.device)


def linear_calls(network: nn.Module, call: Callable[[], object]) -> list[tuple[nn.Module, Tensor]]:
    """Lists the linear layers that a call passes, with their inputs."""
    found: list[tuple[nn.Module, Tensor]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append((layer, inputs[0]))

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | PackedLinear | Int8Linear)]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    call()
    for handle in handles:
        handle.remove()
    return found


def encode(pixels: UInt8[np.ndarray, "Y X 3"], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()
