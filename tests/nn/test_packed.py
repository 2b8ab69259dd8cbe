import copy

import pytest
import torch
from torch import nn

from oar_core.models.base import Commit, Condition, Query
from oar_core.models.model import in_number_format
from oar_core.nn.packed import Int8Linear, PackedLinear, Packing, can_pack, lay_out, packed_twin, rounded_rows
from tests.engine.backbones import TINY, tiny_backbone

pytestmark = pytest.mark.skipif(not can_pack(tiny_backbone()), reason="this build of PyTorch cannot pack weights")


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("packing", [Packing(), Packing(padded_rows=5)])
def test_a_packed_layer_is_the_layer(rows, dtype, bias, packing):
    linear = nn.Linear(48, 20, bias=bias).to(dtype)
    if not can_pack(linear):
        pytest.skip("not in this dtype")
    x = torch.randn(2, rows, 48).to(dtype)
    with torch.inference_mode():
        torch.testing.assert_close(
            PackedLinear(linear, packing)(x), linear(x), rtol=1e-2, atol=1e-2 if dtype.itemsize == 2 else 1e-5
        )


def test_kernels_are_made_for_few_numbers_of_rows():
    every = range(1, 4097)
    assert [rounded_rows(rows) for rows in range(1, 9)] == list(range(1, 9))
    assert all(rows <= rounded_rows(rows) <= 1.25 * rows for rows in every)
    assert len({rounded_rows(rows) for rows in every}) == 8 + 4 * 9


def test_rows_that_are_added_leave_the_others_alone():
    linear = nn.Linear(16, 8, bias=False)
    x = torch.randn(9, 16)
    with torch.inference_mode():
        together, in_tens = PackedLinear(linear)(x), PackedLinear(linear)(torch.cat([x, torch.ones(1, 16)]))
    assert together.shape == (9, 8)
    assert torch.equal(together, in_tens[:9])


def test_weights_that_are_laid_out_are_the_same_tensors_in_another_place():
    backbone = copy.deepcopy(tiny_backbone())
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    for _ in range(2):
        lay_out(backbone)
        assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    linears = [module for module in backbone.modules() if isinstance(module, nn.Linear)]
    assert all(linear.weight.t().is_contiguous() for linear in linears)
    linear, x = linears[0], torch.randn(5, linears[0].in_features)
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(linear)(x), linear(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(linear(x), x @ linear.weight.contiguous().t(), rtol=1e-4, atol=1e-5)


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


def test_few_rows_take_the_weights_as_they_are(monkeypatch):
    linear = nn.Linear(16, 8, bias=False)
    layer = PackedLinear(linear, Packing(3))
    monkeypatch.setattr(layer, "_packed", torch.ops.mkldnn._reorder_linear_weight(torch.zeros(8, 16)))
    with torch.inference_mode():
        assert torch.equal(layer(torch.ones(2, 16)), linear(torch.ones(2, 16)))
        assert not layer(torch.ones(3, 16)).any()


@pytest.mark.parametrize("shape", [(1, 48), (5, 48), (2, 3, 48)])
@pytest.mark.parametrize("bias", [False, True])
def test_an_int8_layer_is_nearly_the_layer(shape, bias):
    linear = nn.Linear(48, 20, bias=bias)
    x = torch.randn(shape)
    with torch.inference_mode():
        exact, whole = linear(x), Int8Linear(linear)(x)
    assert whole.shape == exact.shape
    assert (whole - exact).norm() < 0.02 * exact.norm()


def test_an_int8_layer_gives_a_token_the_same_bits_in_any_company():
    layer = Int8Linear(nn.Linear(48, 20, bias=False))
    x = torch.randn(40, 48) * torch.logspace(-3, 3, 40)[:, None]
    with torch.inference_mode():
        together = layer(x)
        assert all(torch.equal(layer(x[row : row + 1])[0], together[row]) for row in range(40))


def test_an_int8_layer_takes_zeros():
    linear = nn.Linear(4, 3, bias=False)
    nn.init.zeros_(linear.weight)
    with torch.inference_mode():
        assert torch.equal(Int8Linear(linear)(torch.zeros(2, 4)), torch.zeros(2, 3))


def test_an_int8_network_answers_nearly_as_the_other_and_its_policy_stays():
    query, slots = Query.grid(torch.arange(TINY.num_tokens)[None]), torch.arange(1)
    nothing = torch.zeros(1, 0, dtype=torch.long)
    commit = Commit(nothing, nothing, torch.tensor([0]))
    answers: list[torch.Tensor] = []
    network = copy.deepcopy(tiny_backbone())
    for dtype in (torch.float32, torch.int8):
        network = in_number_format(network, dtype)
        cache = network.new_cache(1)
        network.prefill(cache, slots, Condition.stack([(1, 2)], torch.device("cpu")), commit)
        answers.append(network.step(cache, slots, commit, query))
    assert not any(isinstance(m, nn.Linear) for m in (*network.context.modules(), *network.query.modules()))
    assert network.policy is not None
    assert any(isinstance(m, nn.Linear) for m in network.policy.modules())
    assert 0 < (answers[0] - answers[1]).norm() < 0.1 * answers[0].norm()
