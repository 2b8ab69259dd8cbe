"""What families say of published checkpoints: sizes from shapes, renamed tensors, cards."""

import pytest

from oar_core.errors import WeightsError
from oar_core.models.family import Family
from oar_core.models.importer import Importer, ReadKeys, square_grid
from oar_core.models.load import FAMILIES, family
from oar_core.sampling.sampler import SamplingParams
from oar_wire.options import check_all
from tests.models.golden import Golden

GOLDEN = {"arpg": "arpg", "lpd": "lpd", "llamagen_vq": "vq_llamagen"}  # family -> golden folder
GIVEN = {"num_heads": 4, "grid": [4, 4]}


def importer_of(key: str) -> Importer:
    found = family(key)
    importer = found.importer or found.tokenizer_importer
    assert importer is not None
    return importer


def given_of(key: str) -> dict[str, object]:
    return GIVEN if family(key).importer else {"grid": [4, 4]}


def shapes_of(key: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in Golden.load(GOLDEN[key]).state.items()}


def build(found: Family, config: dict[str, object]):
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
    config = importer.infer(shapes_of(key), GIVEN) if key in GOLDEN else None
    if config is None:
        pytest.skip("no golden checkpoint here")
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
    ],
)
def test_published_sizes_have_their_published_recipe(key, width, grid, title, guidance, steps) -> None:
    publication = importer_of(key).publication
    assert publication is not None
    card = publication({"width": width, "grid": grid})
    assert (card.title, card.defaults["guidance"], card.defaults["steps"]) == (title, guidance, steps)
    assert (card.defaults["guidance_schedule"], card.defaults["group_sizes"]) == ("linear", "published")


def test_ignored_keys_are_whole_keys_or_beginnings() -> None:
    importer = Importer(lambda _: True, lambda *_: {}, lambda *_: {}, ignored=("freqs_cis", "loss."))
    assert [importer.ignores(key) for key in ("freqs_cis", "loss.disc.0", "freqs_cis_2", "lossy")] == [
        True,
        True,
        False,
        False,
    ]
