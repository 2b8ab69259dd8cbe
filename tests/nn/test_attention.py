import torch
import torch.nn.functional as F

from oar_core.nn.attention import additive_mask, attend, compute_dtype


def test_attention_is_softmax_attention_with_heads_joined():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 3, 4, 8, generator=generator)
    keys, values = torch.randn(2, 2, 4, 5, 8, generator=generator)
    visible = torch.rand(2, 1, 3, 5, generator=generator) < 0.5
    visible[..., 0] = True
    expected = F.scaled_dot_product_attention(queries.transpose(1, 2), keys, values, attn_mask=visible)
    joined = attend(queries, keys, values, additive_mask(visible, torch.float32))
    torch.testing.assert_close(joined, expected.transpose(1, 2).reshape(2, 3, 32))


def test_the_compute_dtype_is_that_of_autocast_inside_it():
    weight = torch.zeros(1)
    assert compute_dtype(weight) == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert compute_dtype(weight) == torch.bfloat16
        assert F.linear(weight[None], weight[None]).dtype == torch.bfloat16
