"""What the roofline counts, against a hand count and against what PyTorch counts while the model runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from oar_core.config import BackboneConfig, TokenizerConfig
from oar_core.models.base import Commit, Condition, Query
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.oar.vqgan import VQGAN
from oar_lab.bench.counts import Work, commit_work, decode_work, prefill_work, query_work, sampling_work

CONFIG = BackboneConfig(
    grid=(2, 3), vocab_size=10, condition_vocab=8, max_condition=4, width=8, num_heads=2,
    num_context_layers=2, num_query_layers=3,
)  # fmt: skip
ROWS, TEXT, KNOWN = 3, 4, 2
FEED_FORWARD = 3 * 8 * 64  # 8/3 of a width of 8, rounded up to 64


def test_a_commit_by_hand():
    """Two tokens a row that see six entries: two layers of q, k, v, out and feed-forward, then the shared memory."""
    matrices = 2 * (4 * 64 + FEED_FORWARD) + 2 * 64
    work = commit_work(CONFIG, ROWS, 2, 6, item_size=4)
    assert work.flops == 2 * ROWS * 2 * matrices + 2 * ROWS * 2 * (2 * 2 * 6 * 8)
    assert work.num_bytes == 4 * (matrices + 2 * ROWS * 2 * 6 * 8)


def test_a_query_by_hand():
    """Three layers of q, out and feed-forward, and the head; the memory's six entries are read once."""
    matrices = 3 * (2 * 64 + FEED_FORWARD) + 8 * 10
    work = query_work(CONFIG, ROWS, 2, 6, item_size=2)
    assert work.flops == 2 * ROWS * 2 * matrices + 3 * ROWS * 2 * (2 * 2 * 6 * 8)
    assert work.num_bytes == 2 * (matrices + ROWS * 2 * 6 * 8)
    assert sampling_work(CONFIG, ROWS, 2) == Work(0, 4 * ROWS * 2 * 10)


def test_the_count_is_what_the_model_does():
    backbone = OarBackbone(CONFIG).eval()
    cache, slots = backbone.new_cache(ROWS), torch.arange(ROWS)
    positions = torch.arange(6).expand(ROWS, -1)

    def commit(count: int) -> Commit:
        return Commit(positions[:, :count], positions[:, :count], torch.full((ROWS,), count))

    nothing = Query.grid(positions[:, :0])
    with FlopCounterMode(display=False) as counter:
        backbone.prefill(
            cache, slots, Condition(torch.zeros(ROWS, TEXT, dtype=torch.long), torch.full((ROWS,), TEXT)), commit(0)
        )
    assert counter.get_total_flops() == prefill_work(CONFIG, [TEXT] * ROWS, 4).flops
    with FlopCounterMode(display=False) as counter:
        backbone.step(cache, slots, commit(KNOWN), nothing)
    assert counter.get_total_flops() == commit_work(CONFIG, ROWS, KNOWN, TEXT + KNOWN, 4).flops
    with FlopCounterMode(display=False) as counter:
        backbone.step(cache, slots, commit(0), Query.grid(positions[:, 3:]))
    assert counter.get_total_flops() == query_work(CONFIG, ROWS, 3, TEXT + KNOWN, 4).flops


@pytest.mark.parametrize("widths", [(8,), (8, 16)])
def test_the_count_of_the_decoder_is_what_it_does(widths):
    config = TokenizerConfig(image_size=(8, 16), widths=widths, head_width=4, vocab_size=10, code_width=3)
    tokenizer = VQGAN(config).eval()
    length = config.grid[0] * config.grid[1]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        tokenizer.decode(torch.zeros(2, length, dtype=torch.long))
    assert counter.get_total_flops() == decode_work(config, 2).flops
    weights = sum(p.numel() for name, p in tokenizer.decoder.named_parameters() if p.ndim == 4)
    assert decode_work(config, 2).num_bytes == 4 * (weights + 2 * 3 * 8 * 16)
