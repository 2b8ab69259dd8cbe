"""What families say of published checkpoints: sizes from shapes, renamed tensors, cards."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from oar_core.errors import WeightsError
from oar_core.models.family import ModelFamily
from oar_core.models.gpt import published_shapes
from oar_core.models.importer import Importer, ReadKeys, square_grid
from oar_core.models.janus.checkpoint import network_shapes as janus_shapes
from oar_core.models.janus.config import JanusConfig
from oar_core.models.llamagen.config import LlamaGenConfig
from oar_core.models.load import FAMILIES, family
from oar_core.sampling.sampler import SamplingParams
from oar_wire.options import check_all
from tests.models.detailflow import published
from tests.models.golden import Golden
from tests.models.janus.folder import text_tokenizer, whole_state

# family -> golden folder
GOLDEN = {
    "arpg": "arpg", "lpd": "lpd", "randar": "randar", "llamagen": "llamagen_c2i", "llamagen_vq": "vq_llamagen",
    "maskgit_vq": "vq_maskgit",
}  # fmt: skip
GIVEN = {"num_heads": 4, "grid": [4, 4]}


def importer_of(key: str) -> Importer:
    found = family(key)
    importer = found.importer or found.tokenizer_importer
    assert importer is not None
    return importer


def given_of(key: str) -> dict[str, object]:
    if key == "detailflow":
        return {**published.BACKBONE_GIVEN, "num_tokens": published.TOKENS}
    return GIVEN if family(key).importer else {"grid": [4, 4]}


def shapes_of(key: str) -> dict[str, tuple[int, ...]]:
    without_golden = {"janus": whole_state, "detailflow": published.backbone_state}
    state = without_golden[key]() if key in without_golden else Golden.load(GOLDEN[key]).state
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def build(found: ModelFamily, config: dict[str, object]):
    return (found.backbone or found.tokenizer)(config)


@pytest.mark.parametrize("key", GOLDEN)
def test_the_shapes_of_a_checkpoint_give_the_network_that_its_tensors_fill(key: str) -> None:
    state = ReadKeys(Golden.load(GOLDEN[key]).state)
    importer = importer_of(key)
    config = importer.infer(shapes_of(key), given_of(key))
    network = build(family(key), config)
    network.load_state_dict(importer.native_state(state, config))
    assert set(state) == state.read
    assert config["vocab_size"] == 64
    assert tuple(config["grid"]) == (4, 4)


@pytest.mark.parametrize("key", GOLDEN)
def test_a_family_knows_its_own_checkpoints_alone(key: str) -> None:
    assert [other for other in GOLDEN if importer_of(other).recognises(shapes_of(key))] == [key]


@pytest.mark.parametrize("key", GOLDEN)
def test_a_missing_key_is_named(key: str) -> None:
    state = dict(Golden.load(GOLDEN[key]).state)
    importer = importer_of(key)
    config = importer.infer(shapes_of(key), given_of(key))
    removed = next(name for name in state if "norm" in name)
    del state[removed]
    with pytest.raises((WeightsError, RuntimeError), match=removed.replace(".", r"\.")):
        build(family(key), config).load_state_dict(importer.native_state(ReadKeys(state), config))


def test_heads_are_asked_for_where_the_width_is_no_published_one() -> None:
    with pytest.raises(WeightsError, match="num_heads, which no tensor tells"):
        importer_of("arpg").infer(shapes_of("arpg"), {"grid": [4, 4]})


def test_what_the_config_says_is_checked_against_the_shapes() -> None:
    with pytest.raises(WeightsError, match="say width 64, and the config says 128"):
        importer_of("lpd").infer(shapes_of("lpd"), {**GIVEN, "width": 128})
    with pytest.raises(WeightsError, match="16 positions, which are no grid of 8 x 8"):
        importer_of("lpd").infer(shapes_of("lpd"), {**GIVEN, "grid": [8, 8]})
    with pytest.raises(WeightsError, match="has no field depth"):
        importer_of("arpg").infer(shapes_of("arpg"), {**GIVEN, "depth": 3})
    with pytest.raises(WeightsError, match="no grid of 3 x 3"):
        square_grid(10, {})


@pytest.mark.parametrize("key", [key for key in FAMILIES if family(key).importer])
def test_a_card_has_a_recipe_that_a_model_can_be_asked_for(key: str) -> None:
    importer = importer_of(key)
    assert importer.publication is not None
    config = importer.infer(shapes_of(key), given_of(key))
    card = importer.publication(config)
    check_all(card.defaults)
    SamplingParams(**{name: card.defaults[name] for name in ("guidance", "guidance_schedule", "temperature")})
    assert card.licence
    assert card.source.startswith("https://")
    assert 1 <= card.defaults["steps"] <= 16


@pytest.mark.parametrize(
    ("key", "width", "grid", "title", "guidance", "steps"),
    [
        ("arpg", 1024, (16, 16), "ARPG-L", 5.0, 64),
        ("arpg", 1280, (16, 16), "ARPG-XL", 6.0, 64),
        ("arpg", 1536, (16, 16), "ARPG-XXL", 7.5, 64),
        ("lpd", 1024, (16, 16), "LPD-L-256", 4.8, 20),
        ("lpd", 1280, (32, 32), "LPD-XL-512", 6.0, 48),
        ("lpd", 1536, (16, 16), "LPD-XXL-256", 5.9, 20),
        ("randar", 1024, (16, 16), "RandAR-L", 3.4, 88),
        ("randar", 1280, (16, 16), "RandAR-XL", 4.0, 88),
    ],
)
def test_published_sizes_have_their_published_recipe(key, width, grid, title, guidance, steps) -> None:
    publication = importer_of(key).publication
    assert publication is not None
    card = publication({"width": width, "grid": grid, "vocab_size": 16_384})
    assert (card.title, card.defaults["guidance"], card.defaults["steps"]) == (title, guidance, steps)
    assert (card.defaults["guidance_schedule"], card.defaults["group_sizes"]) == ("linear", "published")


def gpt_shapes(config: LlamaGenConfig, rest: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Of a published LlamaGen."""
    return {**published_shapes(config), **rest}


@pytest.mark.parametrize(
    ("width", "layers", "hidden", "caption_width", "title", "guidance", "steps"),
    [
        (768, 12, 2048, 0, "LlamaGen-B-256", 2.0, 256),
        (1024, 24, 2816, 0, "LlamaGen-L-256", 2.0, 256),
        (1280, 36, 3584, 0, "LlamaGen-XL-384", 1.75, 576),
        (1536, 48, 4096, 0, "LlamaGen-XXL-384", 1.75, 576),
        (3200, 24, 8704, 0, "LlamaGen-3B-384", 1.75, 576),
        (1280, 36, 3584, 2048, "LlamaGen-T2I-XL-256", 7.5, 256),
    ],
)
def test_a_published_llamagen_is_known_by_its_shapes(
    width, layers, hidden, caption_width, title, guidance, steps
) -> None:
    config = LlamaGenConfig(
        width=width, num_layers=layers, num_heads=1 if width != 3200 else 32, ffn_width=hidden
    )  # the heads leave no trace in shapes
    captions = {
        "cls_embedding.uncond_embedding": (120, caption_width),
        "cls_embedding.cap_proj.fc1.weight": (width, caption_width),
        "cls_embedding.cap_proj.fc2.weight": (width, width),
    }
    classes = {"cls_embedding.embedding_table.weight": (1001, width)}
    importer = importer_of("llamagen")
    shapes = gpt_shapes(config, captions if caption_width else classes)
    assert importer.recognises(shapes)
    found = importer.infer(shapes, {})
    assert importer.publication is not None
    card = importer.publication(found)
    assert (card.title, card.defaults["guidance"], card.defaults["steps"]) == (title, guidance, steps)
    assert card.defaults["top_k"] == (1000 if caption_width else 0)
    assert found["width"] // found["num_heads"] == (100 if width == 3200 else 64)
    large = importer.infer(shapes, {"grid": [32, 32]})
    assert importer.publication(large).title.endswith("-512")


def test_a_captions_model_reads_features_unless_it_is_given_an_encoder(tmp_path: Path) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in Golden.load("llamagen_t2i").state.items()}
    importer = importer_of("llamagen")
    config = importer.infer(shapes, GIVEN)
    assert (config["max_caption"], config["caption_width"]) == (120, 32)
    assert importer.conditioner is not None
    made = importer.conditioner(config, None)
    assert made is not None
    assert (made.kind, made.unconditional_ids) == ("features", tuple(range(120)))
    with pytest.raises(WeightsError, match="--text names a T5 encoder's folder"):
        importer.conditioner(config, tmp_path)


def test_a_janus_reads_prompts_with_its_own_text_tokenizer(tmp_path: Path) -> None:
    importer = importer_of("janus")
    assert importer.conditioner is not None
    path = tmp_path / "tokenizer.json"
    text_tokenizer().save(str(path))
    made = importer.conditioner({"condition_vocab": 128}, path)
    assert made is not None
    assert made.encode("a red hen", max_length=24)[-1] == made.unconditional_ids[-1]
    with pytest.raises(WeightsError, match="another model's text tokenizer"):
        importer.conditioner({"condition_vocab": 5}, path)
    with pytest.raises(WeightsError, match=r"--text names its tokenizer\.json"):
        importer.conditioner({"condition_vocab": 128}, None)
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    with pytest.raises(WeightsError, match="is no text tokenizer of Janus: the text tokenizer has no token"):
        importer.conditioner({"condition_vocab": 128}, path)
    path.write_text("{")
    with pytest.raises(WeightsError, match="is no text tokenizer of Janus"):
        importer.conditioner({"condition_vocab": 128}, path)


@pytest.mark.parametrize(
    ("size", "title"),
    [({}, "Janus-Pro-1B"), ({"width": 4096, "num_heads": 32, "num_layers": 30, "ffn_width": 11_008}, "Janus-Pro-7B")],
)
def test_a_published_janus_is_known_by_its_shapes(size: dict[str, int], title: str) -> None:
    config = JanusConfig(**size)
    importer = importer_of("janus")
    found = importer.infer(janus_shapes(config), {})
    assert JanusConfig.from_dict(found) == config
    assert importer.publication is not None
    card = importer.publication(found)
    assert (card.title, card.defaults["guidance"], card.defaults["steps"]) == (title, 5.0, 576)


def test_ignored_keys_are_whole_keys_or_beginnings() -> None:
    importer = Importer(lambda _: True, lambda *_: {}, lambda *_: {}, ignored=("freqs_cis", "loss."))
    assert [importer.ignores(key) for key in ("freqs_cis", "loss.disc.0", "freqs_cis_2", "lossy")] == [
        True,
        True,
        False,
        False,
    ]
