"""Cost of teaching a network an order on several GPUs: computed from its sizes, never run.

Operations and bytes are counted in a pass over one picture of a network without weights. `achieved` is what a GPU does
of them in a second, which a trial has to tell; a third to a half of the data sheet's figure is usual.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import FlopCounterMode

from oar_core.models.base import Backbone, Condition
from oar_core.models.load import FAMILIES, family
from oar_core.models.order_policy import OrderPolicy
from oar_core.models.ordered import OrderedBackbone
from oar_core.train.losses import token_cross_entropy
from oar_core.train.recipe import Recipe
from oar_lab.eval.markdown import markdown_table

STATE_BYTES = 20  # of a parameter: weight, gradient, two moments and the average, four bytes each
BACKWARD = 2  # times the operations of the forward pass
META = torch.device("meta")


@dataclass(frozen=True)
class Machine:
    num_gpus: int = 8
    gpu_gib: float = 80.0
    achieved: float = 150e12  # operations a second of a GPU, in bf16


@dataclass(frozen=True)
class Cost:
    name: str
    num_parameters: int
    state_gib: float  # on each GPU
    picture_mib: float  # that the passes keep of one picture
    pictures_a_gpu: int  # that fit beside the state into nine tenths of the memory
    forward: float  # operations of one picture
    distill_hours: float
    finetune_hours: float
    policy_hours: float


def taught_cost(name: str, backbone: OrderedBackbone, recipe: Recipe, machine: Machine) -> Cost:
    """Cost of the stages of a recipe that follow on `oar train adopt`. The network is on the device `meta`."""
    policy = backbone.new_policy(recipe.order_policy).to(META)
    passes = _Passes(backbone, policy)
    forward = _operations(passes.read)
    asked = _operations(passes.ask) - forward  # of every position once
    scored = _operations(passes.score) - forward
    length, distill, stage = backbone.spec.num_tokens, recipe.distill, recipe.order_finetune_stage
    # Of the remaining positions, all are asked at each step: half of them on average.
    extraction = forward + asked * math.ceil(length / distill.positions_per_step) / 2
    tuning = (1 + BACKWARD) * (forward + stage.policy_ranks * scored)
    teaching = forward + stage.policy_ranks * (asked + (1 + BACKWARD) * scored)
    num_parameters = _count(backbone)
    state, picture = STATE_BYTES * (num_parameters + _count(policy)), passes.kept_bytes()
    space = 0.9 * machine.gpu_gib * 2**30 - state

    def hours(operations: float, num_images: int) -> float:
        return operations * num_images / machine.achieved / machine.num_gpus / 3600

    return Cost(
        name=name,
        num_parameters=num_parameters,
        state_gib=state / 2**30,
        picture_mib=picture / 2**20,
        pictures_a_gpu=max(0, int(space / picture)),
        forward=forward,
        distill_hours=hours(extraction, distill.num_images),
        finetune_hours=hours(tuning, recipe.order_finetune_loop.num_images),
        policy_hours=hours(teaching, recipe.order_policy_loop.num_images),
    )


def usual_backbones() -> dict[str, OrderedBackbone]:
    """Builds, for each imported family that can be taught an order, its usual network without weights."""
    found: dict[str, OrderedBackbone] = {}
    for key in FAMILIES[1:]:
        offered = family(key)
        if offered.backbone is not None and offered.importer is not None:
            network = on_meta({"family": key, "backbone": {}})
            if isinstance(network, OrderedBackbone):
                found[key] = network
    return found


def on_meta(config: Mapping[str, Any]) -> Backbone:
    """The backbone of a model's config, without weights."""
    with META:
        return family(config["family"]).build_backbone(config["family"], config["backbone"])


@dataclass(frozen=True)
class _Passes:
    """Passes over one picture."""

    backbone: OrderedBackbone
    policy: OrderPolicy

    def read(self) -> Tensor:
        condition, positions = self._picture()
        return self.backbone.read(condition, positions, positions).logits

    def ask(self) -> None:
        condition, positions = self._picture()
        self.backbone.ask_at(self.backbone.read(condition, positions, positions).memory, positions, self._rank())

    def score(self) -> None:
        condition, positions = self._picture()
        memory = self.backbone.read(condition, positions, positions).memory
        self.backbone.scores_at(self.policy, memory, positions, self._rank())

    def kept_bytes(self) -> int:
        """Memory that the backward pass of the backbone needs, in fp32: under autocast to bf16 it is less."""
        own = {_storage(parameter) for parameter in self.backbone.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            if _storage(tensor) not in own:
                kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            logits = self.read()
            loss = token_cross_entropy(logits, torch.zeros(logits.shape[:2], dtype=torch.long, device=META))
        del loss
        return sum(kept.values())

    def _picture(self) -> tuple[Condition, Tensor]:
        condition = Condition(torch.zeros(1, 1, dtype=torch.long, device=META), torch.tensor([1]))
        return condition, torch.zeros(1, self.backbone.spec.num_tokens, dtype=torch.long, device=META)

    def _rank(self) -> Tensor:
        return torch.zeros(1, 1, dtype=torch.long, device=META)


def _storage(tensor: Tensor) -> int:
    """Tells apart what tensors share from what they do not, without an address."""
    return StorageWeakRef(tensor.untyped_storage()).cdata


def _operations(run: Callable[[], object]) -> float:
    """Multiplications and additions of its matrix products."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def cost_table(costs: Sequence[Cost]) -> str:
    """Markdown."""
    header = (
        "network", "parameters", "state a GPU", "kept a picture", "pictures a GPU", "forward pass",
        "distill", "order_finetune", "order_policy",
    )  # fmt: skip
    return markdown_table(header, [_row(cost) for cost in costs])


def _row(cost: Cost) -> list[str]:
    return [
        cost.name,
        f"{cost.num_parameters / 1e6:.0f} M",
        f"{cost.state_gib:.1f} GiB",
        f"{cost.picture_mib:.0f} MiB",
        str(cost.pictures_a_gpu),
        f"{cost.forward / 1e9:.0f} GFLOP",
        *(f"{hours:.1f} h" for hours in (cost.distill_hours, cost.finetune_hours, cost.policy_hours)),
    ]
