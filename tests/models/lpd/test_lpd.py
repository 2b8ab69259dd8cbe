import pytest
import torch

from oar_core.models.base import Condition, Queries
from oar_core.models.load import family
from oar_core.models.lpd.checkpoint import lpd_state
from oar_core.models.lpd.config import LpdConfig
from oar_core.sampling.sampler import SamplingParams
from tests.models.golden import Golden, assert_scales, logits_after_resuming, logits_by_steps

CONFIG = LpdConfig(grid=(4, 4), vocab_size=64, num_classes=10, width=64, num_heads=4, num_layers=2)
UNCONDITIONAL = 10
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def golden():
    return Golden.load("lpd")


@pytest.fixture(scope="module")
def backbone(golden):
    network = family("lpd").build_backbone("lpd", CONFIG.to_dict()).eval()
    network.load_state_dict(lpd_state(golden.state, CONFIG))
    return network


def path(golden, name):
    tokens, sizes = golden.tensor(f"{name}_tokens_by_rank"), golden.vectors[f"{name}_group_sizes"].tolist()
    return golden.tensor("orders"), tokens, sizes


@pytest.mark.parametrize("name", ["single", "parallel"])
def test_cached_steps_give_the_numbers_of_their_own_code(backbone, golden, name):
    order, tokens, sizes = path(golden, name)
    conditional = logits_by_steps(backbone, golden.vectors["class_ids"].tolist(), order, tokens, sizes)
    unconditional = logits_by_steps(backbone, [UNCONDITIONAL] * 2, order, tokens, sizes)
    torch.testing.assert_close(conditional, golden.tensor(f"{name}_logits_conditional"), **CLOSE)
    torch.testing.assert_close(unconditional, golden.tensor(f"{name}_logits_unconditional"), **CLOSE)
    scale = golden.tensor(f"{name}_scale_of_rank")[None, :, None]
    guided = unconditional + scale * (conditional - unconditional)
    torch.testing.assert_close(guided, golden.tensor(f"{name}_logits_guided"), atol=5e-5, rtol=0)


@pytest.mark.parametrize("name", ["single", "parallel"])
def test_guidance_grows_by_rank_as_theirs(backbone, golden, name):
    sampling = SamplingParams(guidance=4.0, guidance_schedule="linear")
    assert_scales(backbone, sampling, golden.vectors[f"{name}_group_sizes"], golden.vectors[f"{name}_scale_of_rank"])


@torch.no_grad()
@pytest.mark.parametrize("name", ["single", "parallel"])
def test_the_training_pass_gives_theirs(backbone, golden, name):
    order, tokens, sizes = path(golden, name)
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    condition = Condition.stack([[number] for number in golden.vectors["class_ids"]], torch.device("cpu"))
    found = backbone(condition, tokens, order, groups)
    torch.testing.assert_close(found, golden.tensor(f"{name}_logits_one_pass_conditional"), **CLOSE)


@pytest.mark.parametrize("num_groups", [1, 2, 3, 4])
def test_a_resumed_picture_repeats_its_groups(backbone, golden, num_groups):
    order, tokens, sizes = path(golden, "parallel")
    ends = torch.tensor(sizes).cumsum(0)
    resumed = logits_after_resuming(backbone, golden.vectors["class_ids"].tolist(), order, tokens, sizes, num_groups)
    wanted = golden.tensor("parallel_logits_conditional")[:, ends[num_groups - 1] : ends[num_groups]]
    torch.testing.assert_close(resumed, wanted, **CLOSE)


def test_it_says_that_queries_see_each_other(backbone):
    assert backbone.spec.queries is Queries.GROUP
    assert not backbone.spec.can_ask_all
