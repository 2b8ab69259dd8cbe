from dataclasses import replace

import pytest
import torch

from oar_core.errors import WeightsError
from oar_core.models.base import Commit, Condition, Queries, Query
from oar_core.models.gpt import GptConfig
from oar_core.models.load import family
from oar_core.models.randar.checkpoint import randar_state
from oar_core.sampling.sampler import SamplingParams
from tests.models.golden import Golden, assert_scales, logits_after_resuming, logits_by_steps

CONFIG = GptConfig(grid=(4, 4), vocab_size=64, num_classes=10, width=64, num_heads=4, num_layers=2, ffn_width=256)
UNCONDITIONAL = 10
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def golden():
    return Golden.load("randar")


@pytest.fixture(scope="module")
def backbone(golden):
    network = family("randar").build_backbone("randar", CONFIG.to_dict()).eval()
    network.load_state_dict(randar_state(golden.state, CONFIG))
    return network


def path(golden, name):
    tokens, sizes = golden.tensor(f"{name}_tokens_by_rank"), golden.vectors[f"{name}_group_sizes"].tolist()
    return golden.tensor("token_order"), tokens, sizes


def test_instructions_are_those_of_their_own_code(backbone, golden):
    found = backbone.instructions(golden.tensor("token_order"))
    torch.testing.assert_close(found, golden.tensor("position_instruction_tokens"), **CLOSE)


@pytest.mark.parametrize("name", ["single", "parallel"])
def test_cached_steps_give_the_numbers_of_their_own_code(backbone, golden, name):
    order, tokens, sizes = path(golden, name)
    conditional = logits_by_steps(backbone, golden.vectors["class_ids"].tolist(), order, tokens, sizes)
    unconditional = logits_by_steps(backbone, [UNCONDITIONAL] * 2, order, tokens, sizes)
    torch.testing.assert_close(conditional, golden.tensor(f"{name}_logits_conditional"), **CLOSE)
    torch.testing.assert_close(unconditional, golden.tensor(f"{name}_logits_unconditional"), **CLOSE)
    scale = golden.tensor(f"{name}_scale_of_group").repeat_interleave(torch.tensor(sizes))[None, :, None].float()
    guided = unconditional + scale * (conditional - unconditional)
    torch.testing.assert_close(guided, golden.tensor(f"{name}_logits_guided"), atol=5e-5, rtol=0)


@pytest.mark.parametrize("name", ["single", "parallel"])
def test_a_step_feeds_what_theirs_feeds_and_leaves_as_much(backbone, golden, name, monkeypatch):
    order, tokens, sizes = path(golden, name)
    fed, forward = [], backbone.gpt.forward
    monkeypatch.setattr(backbone.gpt, "forward", lambda x, *rest: fed.append(len(x) // 2) or forward(x, *rest))
    logits_by_steps(backbone, golden.vectors["class_ids"].tolist(), order, tokens, sizes)
    prefilled, first, *others = fed  # their first step takes in the class as well
    assert [prefilled + first, *others] == golden.vectors[f"{name}_cache_positions_per_call"].tolist()


@torch.no_grad()
def test_the_training_pass_gives_theirs(backbone, golden):
    order, tokens, _ = path(golden, "single")
    condition = Condition.stack([[number] for number in golden.vectors["class_ids"]], torch.device("cpu"))
    wanted = golden.tensor("single_logits_one_pass_conditional")
    torch.testing.assert_close(backbone(condition, tokens, order), wanted, **CLOSE)


@pytest.mark.parametrize("num_groups", [1, 2, 3, 4, 5])
def test_a_resumed_picture_repeats_its_groups(backbone, golden, num_groups):
    order, tokens, sizes = path(golden, "parallel")
    ends = torch.tensor(sizes).cumsum(0)
    resumed = logits_after_resuming(backbone, golden.vectors["class_ids"].tolist(), order, tokens, sizes, num_groups)
    wanted = golden.tensor("parallel_logits_conditional")[:, ends[num_groups - 1] : ends[num_groups]]
    torch.testing.assert_close(resumed, wanted, **CLOSE)


def test_what_was_asked_and_is_not_committed_next_leaves_nothing(backbone, golden):
    """A question that stays in the cache is forgotten where another token, or another question, follows it."""
    order, tokens, _ = path(golden, "parallel")
    wanted = golden.tensor("parallel_logits_conditional")[:, :3]
    slots, counts = torch.arange(2), torch.tensor([1, 1])
    cache = backbone.new_cache(2)
    nothing = Commit(tokens[:, :0], order[:, :0], torch.zeros(2, dtype=torch.long))
    condition = Condition.stack([[number] for number in golden.vectors["class_ids"]], torch.device("cpu"))
    backbone.prefill(cache, slots, condition, nothing)
    backbone.step(cache, slots, nothing, Query.grid(order[:, 5:9]))
    first = backbone.step(cache, slots, nothing, Query.grid(order[:, :1]))
    torch.testing.assert_close(first.view(2, 1, -1), wanted[:, :1], **CLOSE)
    backbone.step(cache, slots, nothing, Query.grid(order[:, 5:9]))
    commit = Commit(tokens[:, :1], order[:, :1], counts)
    rest = backbone.step(cache, slots, commit, Query.grid(order[:, 1:3]))
    torch.testing.assert_close(rest.view(2, 2, -1), wanted[:, 1:], **CLOSE)


def test_a_question_between_two_steps_changes_not_a_bit_of_what_follows(backbone, golden, monkeypatch):
    """As of a preview, which asks for what is not there yet."""
    order, tokens, sizes = path(golden, "parallel")
    classes = golden.vectors["class_ids"].tolist()
    undisturbed = logits_by_steps(backbone, classes, order, tokens, sizes)
    step = backbone.step

    def disturbed(cache, slots, commit, query):
        answer = step(cache, slots, commit, query)
        if query.counts[0]:
            step(cache, slots[1:], Commit(tokens[:1, :0], order[:1, :0], torch.tensor([0])), Query.grid(order[1:, -3:]))
        return answer

    monkeypatch.setattr(backbone, "step", disturbed)
    assert torch.equal(logits_by_steps(backbone, classes, order, tokens, sizes), undisturbed)


@pytest.mark.parametrize("name", ["single", "parallel"])
def test_guidance_grows_with_the_start_of_a_group_as_theirs(backbone, golden, name):
    sampling = SamplingParams(guidance=4.0, guidance_schedule="linear")
    assert_scales(backbone, sampling, golden.vectors[f"{name}_group_sizes"], golden.vectors[f"{name}_scale_of_group"])


def test_it_says_that_a_query_sees_those_before_it(backbone):
    spec = backbone.spec
    assert spec.queries is Queries.EARLIER
    assert (spec.has_free_groups, spec.has_free_commits, spec.can_ask_all, spec.has_free_order) == (0, 1, 0, 1)


def test_a_checkpoint_of_another_kind_is_refused_with_its_first_fault(golden):
    state = dict(golden.state)
    llamagen = Golden.load("llamagen_c2i").state
    wrong = {
        "it has no pos_instruct_embeddings": llamagen,
        "it also has layers.1.": state,
        r"tok_embeddings.weight is \[65, 64\] and not \[64, 64\]": {
            **state,
            "tok_embeddings.weight": torch.zeros(65, 64),
        },
    }
    for sentence, found in wrong.items():
        config = replace(CONFIG, num_layers=1) if "also" in sentence else CONFIG
        with pytest.raises(WeightsError, match=f"no RandAR checkpoint.*{sentence}"):
            randar_state(found, config)
