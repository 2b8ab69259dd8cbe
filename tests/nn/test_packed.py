import pytest
import torch
from torch import nn

from oar_core.models.backbone import Commit, Condition, Query
from oar_core.nn.packed import PackedLinear, can_pack, packed_twin
from tests.engine.backbones import TINY, tiny_backbone

pytestmark = pytest.mark.skipif(not can_pack(tiny_backbone()), reason="this build of PyTorch cannot pack weights")


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_layer_is_the_layer(rows, dtype):
    linear = nn.Linear(48, 20, bias=False).to(dtype)
    if not can_pack(linear):
        pytest.skip("not in this dtype")
    x = torch.randn(2, rows, 48).to(dtype)
    with torch.inference_mode():
        torch.testing.assert_close(
            PackedLinear(linear)(x), linear(x), rtol=1e-2, atol=1e-2 if dtype.itemsize == 2 else 1e-5
        )


def test_a_twin_shares_the_weights_and_leaves_the_other_as_it_is():
    backbone = tiny_backbone()
    names = set(backbone.state_dict())
    twin = packed_twin(backbone)
    assert not any(isinstance(module, PackedLinear) for module in backbone.modules())
    assert sum(isinstance(module, PackedLinear) for module in twin.modules()) > 10
    assert {id(p) for p in twin.parameters()} == {id(p) for p in backbone.parameters()}
    assert set(twin.state_dict()) == names
    assert twin.config is not None
    assert twin.has_policy


def test_a_twin_answers_as_the_other():
    backbone = tiny_backbone()
    twin = packed_twin(backbone)
    query, slots = Query.grid(torch.arange(TINY.num_tokens)[None]), torch.arange(1)
    nothing = torch.zeros(1, 0, dtype=torch.long)
    commit = Commit(nothing, nothing, torch.tensor([0]))
    answers = []
    for network in (backbone, twin):
        cache = network.new_cache(1)
        network.prefill(cache, slots, Condition.stack([(1, 2)], torch.device("cpu")), commit)
        answers.append((network.step(cache, slots, commit, query), network.score(cache, slots, query)))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-4)


def test_what_lies_on_another_device_is_not_packed():
    assert not can_pack(nn.Linear(2, 2, bias=False, device="meta"))
    assert not can_pack(nn.Linear(2, 2, bias=False).double())
