import pytest
import torch

from oar_core.models.arpg.checkpoint import arpg_state
from oar_core.models.arpg.config import ArpgConfig
from oar_core.models.base import Commits, Condition
from oar_core.models.load import family
from oar_core.sampling.sampler import SamplingParams
from tests.models.golden import Golden, assert_scales, logits_after_resuming, logits_by_steps

CONFIG = ArpgConfig(grid=(4, 4), vocab_size=64, num_classes=10, width=64, num_heads=4, num_layers=2, ffn_width=256)
UNCONDITIONAL = 10
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def golden():
    return Golden.load("arpg")


@pytest.fixture(scope="module")
def backbone(golden):
    network = family("arpg").build_backbone("arpg", CONFIG.to_dict()).eval()
    network.load_state_dict(arpg_state(golden.state, CONFIG))
    return network


def path(golden, name):
    order = golden.tensor(f"{name}_order").expand(2, -1)
    return order, golden.tensor(f"{name}_tokens_by_rank"), golden.vectors[f"{name}_group_sizes"].tolist()


@pytest.mark.parametrize("name", ["single", "arccos", "cosine"])
def test_cached_steps_give_the_numbers_of_their_own_code(backbone, golden, name):
    order, tokens, sizes = path(golden, name)
    conditional = logits_by_steps(backbone, golden.vectors["class_ids"].tolist(), order, tokens, sizes)
    unconditional = logits_by_steps(backbone, [UNCONDITIONAL] * 2, order, tokens, sizes)
    torch.testing.assert_close(conditional, golden.tensor(f"{name}_logits_conditional"), **CLOSE)
    torch.testing.assert_close(unconditional, golden.tensor(f"{name}_logits_unconditional"), **CLOSE)
    scale = golden.tensor(f"{name}_scale_of_group").repeat_interleave(torch.tensor(sizes))[None, :, None].float()
    guided = unconditional + scale * (conditional - unconditional)
    torch.testing.assert_close(guided, golden.tensor(f"{name}_logits_guided"), atol=5e-5, rtol=0)


@pytest.mark.parametrize(("name", "schedule"), [("single", "constant"), ("arccos", "linear"), ("cosine", "constant")])
def test_guidance_grows_with_the_end_of_a_group_as_theirs(backbone, golden, name, schedule):
    sampling = SamplingParams(guidance=4.0, guidance_schedule=schedule)
    assert_scales(backbone, sampling, golden.vectors[f"{name}_group_sizes"], golden.vectors[f"{name}_scale_of_group"])


@torch.no_grad()
def test_the_training_pass_is_causal_as_theirs_is(backbone, golden):
    order, tokens, _ = path(golden, "single")
    condition = Condition.stack([[number] for number in golden.vectors["class_ids"]], torch.device("cpu"))
    wanted = golden.tensor("single_logits_one_pass_causal_conditional")
    torch.testing.assert_close(backbone(condition, tokens, order), wanted, **CLOSE)


@pytest.mark.parametrize("num_groups", [1, 2, 3, 4])
def test_a_resumed_picture_repeats_its_groups(backbone, golden, num_groups):
    order, tokens, sizes = path(golden, "arccos")
    ends = torch.tensor(sizes).cumsum(0)
    resumed = logits_after_resuming(backbone, golden.vectors["class_ids"].tolist(), order, tokens, sizes, num_groups)
    wanted = golden.tensor("arccos_logits_conditional")[:, ends[num_groups - 1] : ends[num_groups]]
    torch.testing.assert_close(resumed, wanted, **CLOSE)


def test_it_says_that_committed_groups_see_themselves(backbone):
    assert backbone.spec.commits is Commits.GROUP
    assert not backbone.spec.has_free_groups
    assert backbone.spec.can_ask_all
