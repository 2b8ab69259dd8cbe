from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oar_wire.errors import InvalidRequest
from oar_wire.model import GenerationDefaults, ModelInfo
from oar_wire.request import GenerationRequest
from server.api.validation import resolve
from server.settings import Settings

MODEL = ModelInfo(
    name="tiny",
    grid=(2, 3),
    image_size=(8, 12),
    orders=("raster", "random"),
    group_sizes=("cosine",),
    defaults=GenerationDefaults(
        order="random", steps=3, guidance=2.5, temperature=0.7, top_k=5, top_p=0.9, entropy_bound=2.5, candidates=3
    ),
)
SETTINGS = Settings(data_dir=Path("unused"))


def test_what_is_absent_is_the_models_default() -> None:
    params = resolve(GenerationRequest(prompt="x", seed=0, guidance=1), MODEL, SETTINGS)
    assert (params.order, params.steps, params.temperature, params.top_k, params.top_p) == ("random", 3, 0.7, 5, 0.9)
    assert params.entropy_bound == 2.5
    assert resolve(GenerationRequest(prompt="x", entropy_bound=0), MODEL, SETTINGS).entropy_bound == 0
    assert params.candidates == 3
    assert resolve(GenerationRequest(prompt="x", candidates=1), MODEL, SETTINGS).candidates == 1
    assert params.guidance == 1
    assert (params.seed, params.rows_per_image) == (0, 1), "a zero is not an absence"


@given(st.permutations(range(6)))
def test_every_permutation_is_an_order(order: list[int]) -> None:
    assert resolve(GenerationRequest(prompt="x", order=order), MODEL, SETTINGS).order == tuple(order)


@given(st.lists(st.integers(-2, 7), max_size=8).filter(lambda order: sorted(order) != list(range(6))))
def test_nothing_else_is(order: list[int]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        resolve(GenerationRequest(prompt="x", order=order), MODEL, SETTINGS)
    assert (refusal.value.code, refusal.value.field) == ("invalid_order", "order")


def test_chosen_seeds_differ() -> None:
    seeds = {resolve(GenerationRequest(prompt="x"), MODEL, SETTINGS).seed for _ in range(20)}
    assert len(seeds) > 15
    assert max(seeds) < 2**31
