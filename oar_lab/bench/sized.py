"""Networks of published sizes with random weights, and what they are asked for: their speed is that of trained ones."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from oar_core.errors import ConfigError
from oar_core.models.base import Backbone
from oar_core.models.load import family
from oar_core.models.model import in_number_format
from oar_core.order.plan import PlanSpec
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.train.run import seeded_init
from oar_lab.bench.plain import as_published

NATIVE = "oar"
NATIVE_STEPS = 20  # of the native network, which is no published one: as many as LPD's
GPT_WIDTHS = {"tiny": (64, 2, 4, 256), "B": (768, 12, 12, 2048), "L": (1024, 24, 16, 2816), "XL": (1280, 36, 20, 3584)}
SIZES = tuple(GPT_WIDTHS)
KEYS = (NATIVE, "arpg", "lpd", "randar", "llamagen", "janus")
NUM_CLASSES = 1000
PROMPT = tuple(range(3, 23))  # of Janus: its template and a few words
PADDED_PROMPT = (0, 1, 2)


@dataclass(frozen=True)
class SizedNetwork:
    """`defaults` are those of the family's card."""

    key: str
    backbone: Backbone
    defaults: dict[str, Any]

    @cached_property
    def published(self) -> Backbone:
        """A copy whose weights lie as a checkpoint's do."""
        network = copy.deepcopy(self.backbone)
        as_published(network)
        return network

    @property
    def steps(self) -> int:
        return int(self.defaults["steps"])

    @property
    def unconditional_ids(self) -> tuple[int, ...]:
        return PADDED_PROMPT if self.key == "janus" else (self.backbone.spec.condition_vocab - 1,)

    def requests(self, count: int, steps: int | None = None) -> list[SequenceRequest]:
        """Pictures with conditions and seeds of their own, by the card's plan unless in other steps."""
        own = self.defaults
        plan = PlanSpec(own["order"], steps or self.steps, own["group_sizes"], repulsion=own.get("repulsion", 1))
        sampling = SamplingParams(
            guidance=own["guidance"],
            guidance_schedule=own.get("guidance_schedule", "constant"),
            top_k=own.get("top_k", 0),
        )
        return [SequenceRequest(str(n), self._condition(n), n, 0, plan, sampling) for n in range(count)]

    def _condition(self, number: int) -> tuple[int, ...]:
        return (*PROMPT, number + 3) if self.key == "janus" else (number % NUM_CLASSES,)


def sized_network(key: str, size: str, layers: int | None = None) -> SizedNetwork:
    """`layers`: as many in place of all. Raises ConfigError for a family or a size that is not measured here."""
    if key not in KEYS or size not in GPT_WIDTHS:
        raise ConfigError(f"family {key!r} of size {size!r} is not one of {', '.join(KEYS)} of {', '.join(SIZES)}")
    config, kind = _config(key, size, layers), family(key)
    with seeded_init(0):
        backbone = in_number_format(kind.build_backbone(key, config), torch.float32).eval()
    if kind.importer is None or kind.importer.publication is None:
        steps = min(NATIVE_STEPS, backbone.spec.num_tokens)
        defaults: dict[str, Any] = {"order": "halton", "steps": steps, "group_sizes": "cosine", "guidance": 4.0}
    else:
        defaults = dict(kind.importer.publication(config).defaults)
    return SizedNetwork(key, backbone, defaults)


def _config(key: str, size: str, layers: int | None) -> dict[str, Any]:
    width, num_layers, num_heads, ffn_width = GPT_WIDTHS[size]
    num_layers, is_tiny = layers or num_layers, size == "tiny"
    stacks = max(1, num_layers // 2)
    config: dict[str, Any] = {"vocab_size": 64 if is_tiny else 16_384, "width": width, "num_heads": num_heads}
    grid = (4, 4) if is_tiny else (24, 24) if key == "janus" else (16, 16)
    labels, depth, ffn = {"num_classes": NUM_CLASSES}, {"num_layers": num_layers}, {"ffn_width": ffn_width}
    of_family: dict[str, dict[str, Any]] = {
        "oar": {"condition_vocab": NUM_CLASSES + 1, "max_condition": 1, **_both(stacks)},
        "arpg": {**labels, "num_layers": stacks, **ffn},
        "lpd": {**labels, **depth},
        "randar": {**labels, **depth, **ffn},
        "llamagen": {**labels, **depth, **ffn, "caption_width": 0},
        "janus": {"condition_vocab": NUM_CLASSES, "max_condition": 64, **depth, **ffn},
    }
    return {**config, "grid": grid, **of_family[key]}


def _both(layers: int) -> dict[str, int]:
    return {"num_context_layers": layers, "num_query_layers": layers}


def conditions_of(requests: Sequence[SequenceRequest]) -> list[tuple[int, ...]]:
    """Conditions as ids, which all of these have."""
    return [request.condition_ids for request in requests if isinstance(request.condition_ids, tuple)]
