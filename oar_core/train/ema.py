"""An exponential moving average of a module's state; what is shipped is the average, not the last step."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from oar_core.train.data import ImageSet


class Ema:
    """Averages the parameters; buffers are copied as they are."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """`step` counts from 1; the early average forgets faster, so that the random start is not remembered."""
        decay = min(self.decay, step / (step + 10))
        parameters = {name for name, _ in module.named_parameters()}
        for name, value in module.state_dict().items():
            if name in parameters:
                self.shadow[name].lerp_(value, 1 - decay)
            else:
                self.shadow[name].copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        return self.shadow

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            self.shadow[name].copy_(value)


def settle_norms(net: nn.Module, images: ImageSet, seed: int, *, num_images: int = 4096) -> None:
    """Batch statistics of the averaged weights: those that training kept belong to the last weights."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:num_images]
    device = next(net.parameters()).device
    update_bn((images.images(part).to(device) for part in chosen.split(256)), net)
