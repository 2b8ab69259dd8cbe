import pytest
import torch

from oar_core.errors import WeightsError
from oar_core.models.base import Commit, Condition, Features, Queries, Query
from oar_core.models.llamagen.checkpoint import llamagen_state
from oar_core.models.llamagen.config import LlamaGenConfig
from oar_core.models.load import family
from tests.models.golden import Golden, logits_by_steps

SIZES = {"grid": (4, 4), "vocab_size": 64, "width": 64, "num_heads": 4, "num_layers": 2, "ffn_width": 256}
CLASSES = LlamaGenConfig(**SIZES, num_classes=10)
CAPTIONS = LlamaGenConfig(**SIZES, caption_width=32)
UNCONDITIONAL, RASTER = 10, torch.arange(16).expand(2, -1)
CLOSE = {"atol": 1e-5, "rtol": 0}
CPU = torch.device("cpu")


def built(golden, config):
    network = family("llamagen").build_backbone("llamagen", config.to_dict()).eval()
    network.load_state_dict(llamagen_state(golden.state, config))
    return network


@pytest.fixture(scope="module")
def golden():
    return Golden.load("llamagen_c2i")


@pytest.fixture(scope="module")
def backbone(golden):
    return built(golden, CLASSES)


@pytest.fixture(scope="module")
def captions():
    return Golden.load("llamagen_t2i")


@pytest.fixture(scope="module")
def caption_backbone(captions):
    return built(captions, CAPTIONS)


def features_of(captions):
    lengths = captions.vectors["valid_lengths"].tolist()
    return [Features(row[:length]) for row, length in zip(captions.tensor("text_features"), lengths)]


def nothing_beside(backbone, prefixes):
    whole = tuple(range(120))
    return [backbone.spec.unconditional_beside(prefix, whole) for prefix in prefixes]


def by_steps(backbone, prefixes, tokens, known=0):
    """Logits of all ranks from `known` on, each from a cached step; the tokens before are in the prefill."""
    raster, slots = torch.arange(16).expand(len(tokens), -1), torch.arange(len(tokens))
    cache = backbone.new_cache(len(tokens))
    counts = torch.full((len(tokens),), known)
    backbone.prefill(cache, slots, Condition.stack(prefixes, CPU), Commit(tokens[:, :known], raster[:, :known], counts))
    commit, parts = Commit(tokens[:, :0], raster[:, :0], torch.zeros_like(counts)), []
    for rank in range(known, tokens.shape[1]):
        place = slice(rank, rank + 1)
        parts.append(backbone.step(cache, slots, commit, Query.grid(raster[:, place])))
        commit = Commit(tokens[:, place], raster[:, place], torch.ones_like(counts))
    return torch.stack(parts, dim=1)


def test_cached_steps_give_the_numbers_of_their_own_code(backbone, golden):
    tokens = golden.tensor("tokens")
    conditional = logits_by_steps(backbone, golden.vectors["class_ids"].tolist(), RASTER, tokens, [1] * 16)
    unconditional = logits_by_steps(backbone, [UNCONDITIONAL] * 2, RASTER, tokens, [1] * 16)
    torch.testing.assert_close(conditional, golden.tensor("logits_conditional"), **CLOSE)
    torch.testing.assert_close(unconditional, golden.tensor("logits_unconditional"), **CLOSE)
    guided = unconditional + 4 * (conditional - unconditional)
    torch.testing.assert_close(guided, golden.tensor("logits_guided"), atol=5e-5, rtol=0)


@torch.no_grad()
def test_the_training_pass_gives_theirs(backbone, golden):
    rows = {"conditional": golden.vectors["class_ids"].tolist(), "unconditional": [UNCONDITIONAL] * 2}
    for name, classes in rows.items():
        condition = Condition.stack([[number] for number in classes], CPU)
        found = backbone(condition, golden.tensor("tokens"), RASTER)
        torch.testing.assert_close(found, golden.tensor(f"logits_one_pass_{name}"), **CLOSE)


def test_captions_enter_the_network_as_in_their_own_code(caption_backbone, captions):
    prefixes = features_of(captions)
    for name, rows in {"caption": prefixes, "null": nothing_beside(caption_backbone, prefixes)}.items():
        found = caption_backbone.embed_condition(Condition.stack(rows, CPU))
        for row, prefix, wanted in zip(found, rows, captions.tensor(f"projected_{name}_last24")):
            torch.testing.assert_close(row[: len(prefix)], wanted[-len(prefix) :], **CLOSE)


def test_cached_steps_from_captions_give_the_numbers_of_their_own_code(caption_backbone, captions):
    """Rows of features and of ids, of different lengths, all in one batch."""
    prefixes, tokens = features_of(captions), captions.tensor("tokens")
    rows = [*prefixes, *nothing_beside(caption_backbone, prefixes)]
    conditional, unconditional = by_steps(caption_backbone, rows, tokens.repeat(2, 1)).chunk(2)
    torch.testing.assert_close(conditional, captions.tensor("logits_conditional"), **CLOSE)
    torch.testing.assert_close(unconditional, captions.tensor("logits_unconditional"), **CLOSE)
    guided = unconditional + 7.5 * (conditional - unconditional)
    torch.testing.assert_close(guided, captions.tensor("logits_guided"), atol=1e-4, rtol=0)


def test_prefill_gives_their_numbers_at_every_token_of_a_caption(caption_backbone, captions):
    """A stack that is causal answers at a caption's token as if the caption ended there."""
    slot, nothing = (
        torch.arange(1),
        Commit(*(torch.zeros(1, 0, dtype=torch.long) for _ in range(2)), torch.zeros(1).long()),
    )
    prefixes = features_of(captions)
    rows = {"conditional": prefixes, "unconditional": nothing_beside(caption_backbone, prefixes)}
    for name, found in rows.items():
        for row, wanted in zip(found, captions.tensor(f"prefill_logits_last24_{name}")):
            for count in range(1, len(row) + 1):
                part = Features(row.values[:count]) if isinstance(row, Features) else row[:count]
                cache = caption_backbone.new_cache(1)
                caption_backbone.prefill(cache, slot, Condition.stack([part], CPU), nothing)
                (logits,) = caption_backbone.step(cache, slot, nothing, Query.grid(RASTER[:1, :1]))
                torch.testing.assert_close(logits, wanted[24 - len(row) + count - 1], **CLOSE)


@torch.no_grad()
def test_the_training_pass_from_captions_of_different_lengths_is_that_of_the_steps(caption_backbone, captions):
    prefixes, tokens = features_of(captions), captions.tensor("tokens")
    found = caption_backbone(Condition.stack(prefixes, CPU), tokens, RASTER)
    torch.testing.assert_close(found, captions.tensor("logits_conditional"), **CLOSE)


@pytest.mark.parametrize("known", [1, 7, 15])
def test_a_resumed_picture_goes_on_with_the_same_numbers(backbone, golden, known):
    classes = [[number] for number in golden.vectors["class_ids"]]
    found = by_steps(backbone, classes, golden.tensor("tokens"), known)
    torch.testing.assert_close(found, golden.tensor("logits_conditional")[:, known:], **CLOSE)


@pytest.mark.parametrize("known", [1, 7, 15])
def test_a_resumed_picture_of_a_caption_goes_on_with_the_same_numbers(caption_backbone, captions, known):
    found = by_steps(caption_backbone, features_of(captions), captions.tensor("tokens"), known)
    torch.testing.assert_close(found, captions.tensor("logits_conditional")[:, known:], **CLOSE)


def test_a_row_may_ask_without_a_commit_and_commit_without_asking(backbone, golden):
    tokens, wanted = golden.tensor("tokens"), golden.tensor("logits_conditional")
    cache, slots = backbone.new_cache(2), torch.arange(2)
    condition = Condition.stack([[number] for number in golden.vectors["class_ids"]], CPU)
    nothing = Commit(tokens[:, :0], RASTER[:, :0], torch.zeros(2, dtype=torch.long))
    backbone.prefill(cache, slots, condition, nothing)
    nobody = Query(RASTER[0, :0], (0, 0))
    commit = Commit(tokens[:, :3], RASTER[:, :3], torch.tensor([3, 2]))
    assert backbone.step(cache, slots, commit, nobody).shape == (0, 64)
    second = backbone.step(cache, slots, nothing, Query(RASTER[0, 2:3], (0, 1)))
    torch.testing.assert_close(second, wanted[1:, 2], **CLOSE)
    first = backbone.step(cache, slots, nothing, Query(RASTER[0, 3:4], (1, 0)))
    torch.testing.assert_close(first, wanted[:1, 3], **CLOSE)


def test_it_says_that_the_next_position_alone_can_be_asked(backbone):
    spec = backbone.spec
    assert spec.queries is Queries.NEXT
    assert (spec.has_free_groups, spec.has_free_commits, spec.can_ask_all, spec.has_free_order) == (1, 1, 0, 0)


def test_a_checkpoint_of_another_kind_is_refused_with_its_first_fault(golden, captions):
    for found, config, sentence in [
        (golden.state, CAPTIONS, "no LlamaGen text-to-image .* it has no cls_embedding.uncond_embedding and 2 more"),
        (captions.state, CLASSES, "no LlamaGen class-to-image .* it has no cls_embedding.embedding_table.weight"),
        (Golden.load("randar").state, CLASSES, "it also has pos_instruct_embeddings"),
        ({**golden.state, "norm.weight": torch.ones(32)}, CLASSES, r"norm.weight is \[32\] and not \[64\]"),
    ]:
        with pytest.raises(WeightsError, match=sentence):
            llamagen_state(found, config)


def test_angles_that_a_checkpoint_also_holds_are_passed_over(golden):
    assert llamagen_state({**golden.state, "freqs_cis": torch.zeros(17, 8, 2)}, CLASSES)
