import importlib.util
from collections.abc import Mapping

import pytest
import torch

from oar_core.errors import WeightsError
from oar_core.models.base import Commit, Condition, Queries, Query
from oar_core.models.janus.checkpoint import DEEPSEEK, LANGUAGE, TOKENIZER, janus_state, tokenizer_state
from oar_core.models.janus.config import JanusConfig
from oar_core.models.load import family
from tests.models.golden import Golden
from tests.models.janus import reference
from tests.models.janus.folder import BACKBONE_CONFIG, TOKENIZER_CONFIG

CLOSE = {"atol": 1e-5, "rtol": 0}
CPU = torch.device("cpu")
NUM_TOKENS = reference.NUM_TOKENS
RASTER = torch.arange(NUM_TOKENS)
PUBLISHED = {"1B": {}, "7B": {"width": 4096, "num_heads": 32, "num_layers": 30, "ffn_width": 11_008}}


@pytest.fixture(scope="module")
def golden():
    return Golden.load("janus")


@pytest.fixture(scope="module")
def backbone(golden):
    return built(golden.state)


@pytest.fixture(scope="module")
def live():
    """What the implementation in `transformers` gives now."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed: the golden file alone is the proof")
    return reference.run(reference.build())


def built(state: Mapping[str, torch.Tensor]):
    network = family("janus").build_backbone("janus", BACKBONE_CONFIG.to_dict()).eval()
    network.load_state_dict(janus_state(state, BACKBONE_CONFIG))
    return network


def built_tokenizer(state, *, is_whole=True):
    network = family("janus").build_tokenizer("janus", TOKENIZER_CONFIG).eval()
    missing, extra = network.load_state_dict(tokenizer_state(state), strict=is_whole)
    assert not extra
    assert all(name.startswith(("encoder.", "quant_conv.")) for name in missing)
    return network


def rows_of(backbone, vectors):
    """Both prompts' prefixes, then what guidance steers away from beside each."""
    prompts = [tuple(vectors[f"prompt_{number}"].tolist()) for number in range(2)]
    unconditional = (reference.BOS, reference.PAD, reference.BEGIN_OF_IMAGE)
    return [*prompts, *(backbone.spec.unconditional_beside(prompt, unconditional) for prompt in prompts)]


def logits_of(backbone, rows, tokens, known=0):
    """Of all ranks from `known` on, each from a cached step of all rows together; the tokens before are prefilled."""
    count = len(rows)
    slots, counts = torch.arange(count), torch.full((count,), known)
    places = RASTER.expand(count, -1)
    cache = backbone.new_cache(count)
    backbone.prefill(cache, slots, Condition.stack(rows, CPU), Commit(tokens[:, :known], places[:, :known], counts))
    commit, parts = Commit(tokens[:, :0], places[:, :0], torch.zeros_like(counts)), []
    for rank in range(known, NUM_TOKENS):
        now = slice(rank, rank + 1)
        parts.append(backbone.step(cache, slots, commit, Query.grid(places[:, now])))
        commit = Commit(tokens[:, now], places[:, now], torch.ones_like(counts))
    return torch.stack(parts, dim=1)


def wanted(vectors, kind):
    return torch.stack([torch.from_numpy(vectors[f"logits_{kind}_{number}"]) for number in range(2)])


def check_logits(backbone, vectors, known=0):
    tokens = torch.from_numpy(vectors["tokens"]).repeat(2, 1)
    found = logits_of(backbone, rows_of(backbone, vectors), tokens, known)
    conditional, unconditional = found.chunk(2)
    torch.testing.assert_close(conditional, wanted(vectors, "conditional")[:, known:], **CLOSE)
    torch.testing.assert_close(unconditional, wanted(vectors, "unconditional")[:, known:], **CLOSE)
    guided = unconditional + reference.GUIDANCE * (conditional - unconditional)
    torch.testing.assert_close(guided, wanted(vectors, "guided")[:, known:], atol=1e-4, rtol=0)


def test_prefill_and_cached_steps_give_the_reference_s_logits(backbone, golden):
    """Prompts of two lengths in one batch."""
    check_logits(backbone, golden.vectors)


@pytest.mark.parametrize("known", [1, 7, 15])
def test_a_resumed_picture_goes_on_with_the_same_logits(backbone, golden, known):
    check_logits(backbone, golden.vectors, known)


@torch.no_grad()
def test_the_training_pass_gives_them_all_at_once(backbone, golden):
    tokens = golden.tensor("tokens").repeat(2, 1)
    condition = Condition.stack(rows_of(backbone, golden.vectors), CPU)
    found = backbone(condition, tokens, RASTER.expand(4, -1))
    wants = torch.cat([wanted(golden.vectors, kind) for kind in ("conditional", "unconditional")])
    torch.testing.assert_close(found, wants, **CLOSE)


def test_what_guidance_steers_away_from_is_as_long_as_the_prompt(backbone, golden):
    *prompts, first, second = rows_of(backbone, golden.vectors)
    assert [len(first), len(second)] == [len(prompt) for prompt in prompts] == [6, 10]
    bos, pad, begin = 1, 2, 3
    assert backbone.spec.unconditional_beside((bos, 9, 9, begin), (bos, pad, begin)) == (bos, pad, pad, begin)
    assert backbone.spec.unconditional_beside((bos, pad, begin), (bos, pad, begin)) == (bos, pad, begin)


@torch.no_grad()
def test_pictures_are_the_reference_s(golden):
    tokenizer = built_tokenizer(golden.state, is_whole=False)
    assert tokenizer.image_size == (8, 8)
    torch.testing.assert_close(tokenizer.decode(golden.tensor("tokens")), golden.tensor("decoded"), **CLOSE)


def test_deepseek_s_own_layout_is_the_same_model(backbone, golden):
    state = {as_deepseek(key): tensor for key, tensor in golden.state.items()}
    assert not set(state) & set(golden.state)
    state["gen_vision_model.quantize.codebook_used"] = torch.zeros(8)
    state["vision_model.vision_tower.norm.weight"] = state["aligner.layers.0.weight"] = torch.zeros(2)
    state["language_model.lm_head.weight"] = torch.zeros(2, 2)
    found = janus_state(state, BACKBONE_CONFIG)
    assert all(torch.equal(found[name], tensor) for name, tensor in backbone.state_dict().items())
    theirs, ours = tokenizer_state(state), tokenizer_state(golden.state)
    assert set(theirs) == set(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def as_deepseek(key):
    """The key that DeepSeek's own file has for one of `transformers`."""
    for theirs, start in DEEPSEEK.items():
        if key.startswith(start):
            key = theirs + key.removeprefix(start)
            break
    for part, name in ((".up.", ".conv_blocks."), (".down.", ".conv_blocks."), (".block.", ".res.")):
        key = key.replace(part, name) if key.startswith("gen_vision_model.") else key
    for place, name in enumerate(("block_1", "attn_1", "block_2")):
        key = key.replace(f"mid.{name}", f"mid.{place}")
    return key


def test_a_checkpoint_of_other_keys_or_sizes_is_refused_with_a_sentence(golden):
    key = f"{LANGUAGE}layers.1.mlp.up_proj.weight"
    without = {name: tensor for name, tensor in golden.state.items() if name != key}
    with pytest.raises(
        WeightsError, match=r"no Janus checkpoint of that size: it has no model\.language_model\.layers"
    ):
        janus_state(without, BACKBONE_CONFIG)
    with pytest.raises(WeightsError, match=r"also has model\.oddity"):
        janus_state({**golden.state, "model.oddity": torch.zeros(1)}, BACKBONE_CONFIG)
    with pytest.raises(WeightsError, match=r"is \[64, 32\] and not \[48, 32\]"):
        janus_state(golden.state, JanusConfig(**{**BACKBONE_CONFIG.to_dict(), "ffn_width": 48}))


def test_it_says_that_it_writes_in_raster_order_alone(backbone):
    assert backbone.spec.queries is Queries.NEXT
    assert not backbone.spec.has_free_order


def test_the_published_sizes_have_their_numbers_of_parameters():
    """Of the language model without its head for text, and of what writes codes."""
    with torch.device("meta"):
        networks = {name: family("janus").build_backbone("janus", size) for name, size in PUBLISHED.items()}
    billions = {name: round(sum(p.numel() for p in net.parameters()) / 1e9, 3) for name, net in networks.items()}
    assert billions == {"1B": 1.485, "7B": 6.592}


@pytest.mark.parametrize("size", ["1B", "7B"])
def test_a_checkpoint_of_a_published_size_fits(size):
    """Shapes alone: no memory is taken."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    config = JanusConfig.from_dict(PUBLISHED[size])
    with torch.device("meta"):
        state = reference.published(config).state_dict()
        network = family("janus").build_backbone("janus", config.to_dict())
        tokenizer = family("janus").build_tokenizer("janus", {"grid": [24, 24]})
    for found, built in ((janus_state(state, config), network), (tokenizer_state(state), tokenizer)):
        shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
        assert {name: tensor.shape for name, tensor in found.items()} == shapes
    assert tokenizer.image_size == (384, 384)


def test_the_reference_still_gives_what_the_golden_file_has(live, golden):
    for name, array in golden.vectors.items():
        torch.testing.assert_close(torch.from_numpy(live.vectors[name]), torch.from_numpy(array), **CLOSE)


@torch.no_grad()
def test_the_reference_run_now_gives_the_same_logits_pictures_and_latents(live):
    check_logits(built(live.state), live.vectors)
    tokenizer = built_tokenizer(live.state)
    found = tokenizer.decode(torch.from_numpy(live.vectors["tokens"]))
    torch.testing.assert_close(found, torch.from_numpy(live.vectors["decoded"]), **CLOSE)
    latents = tokenizer.quant_conv(tokenizer.encoder(torch.from_numpy(live.vectors["image"])))
    torch.testing.assert_close(latents, torch.from_numpy(live.vectors["latents"]), **CLOSE)
    assert any(key.startswith(f"{TOKENIZER}encoder.") for key in live.state)
