import torch
import torch.nn.functional as F

from oar_core.nn.feed_forward import FeedForward, hidden_width


def test_hidden_width_is_at_least_eight_thirds_and_a_multiple_of_64():
    for width in (32, 256, 384, 1000):
        hidden = hidden_width(width)
        assert hidden % 64 == 0
        assert 0 <= hidden - width * 8 / 3 < 64


def test_it_is_a_swish_gated_linear_unit():
    torch.manual_seed(0)
    layer, x = FeedForward(32), torch.randn(2, 32)
    gate, up = layer.gate_up.weight.chunk(2)
    expected = (F.silu(x @ gate.T) * (x @ up.T)) @ layer.down.weight.T
    torch.testing.assert_close(layer(x), expected)
