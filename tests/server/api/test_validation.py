from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oar_wire.errors import InvalidRequest
from oar_wire.model import GenerationDefaults, ModelInfo, describe_options
from oar_wire.openai import ImagesRequest
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


def test_a_list_of_group_sizes_says_the_steps() -> None:
    params = resolve(GenerationRequest(prompt="x", group_sizes=[4, 1, 1]), MODEL, SETTINGS)
    assert (params.group_sizes, params.steps) == ((4, 1, 1), 3)
    again = resolve(GenerationRequest(prompt="x", group_sizes=[4, 2], steps=2), MODEL, SETTINGS)
    assert (again.group_sizes, again.steps) == ((4, 2), 2), "as the parameters of a picture say it"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"group_sizes": [4, 1]}, "group_sizes sums to 5; this model has 6 positions"),
        ({"group_sizes": [4, 2], "steps": 3}, "group_sizes lists 2 steps, and steps is 3: give one of them"),
        ({"group_sizes": "fitted"}, "group_sizes 'fitted' is not one of cosine"),
    ],
)
def test_group_sizes_that_cannot_be_are_refused(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence) as refusal:
        resolve(GenerationRequest(prompt="x", **asked), MODEL, SETTINGS)
    assert (refusal.value.code, refusal.value.field) == ("invalid_steps", "group_sizes")


FITTED = MODEL.model_copy(
    update={"group_sizes": ("fitted", "cosine"), "group_tables": {"random": {2: (1, 5), 3: (1, 1, 4)}}}
)


@pytest.mark.parametrize(
    ("asked", "sizes", "steps"),
    [
        ({}, (1, 1, 4), 3),
        ({"steps": 2}, (1, 5), 2),
        ({"steps": 2, "group_sizes": "fitted"}, (1, 5), 2),
        ({"steps": 4}, "cosine", 4),
        ({"order": "raster"}, "cosine", 3),
        ({"order": [5, 4, 3, 2, 1, 0], "group_sizes": "fitted"}, "cosine", 3),
        ({"group_sizes": "cosine"}, "cosine", 3),
        ({"group_sizes": [2, 4]}, (2, 4), 2),
    ],
)
def test_a_models_own_sizes_are_the_default_of_their_order_and_steps(
    asked: dict[str, Any], sizes: Any, steps: int
) -> None:
    params = resolve(GenerationRequest(prompt="x", **asked), FITTED, SETTINGS)
    assert (params.group_sizes, params.steps) == (sizes, steps)


def test_a_form_offers_fitted_first_where_there_are_tables() -> None:
    for model, usual in ((FITTED, "fitted"), (MODEL, "cosine")):
        (entry,) = (entry for entry in describe_options(model) if entry.name == "group_sizes")
        assert (entry.kind, entry.default, entry.choices) == ("text", usual, model.group_sizes)


def test_a_form_has_no_option_that_can_do_nothing() -> None:
    def names(**changed: Any) -> set[str]:
        chosen = tuple(name for name in changed["orders"] if name in ("shortlist", "confidence"))
        model = MODEL.model_copy(update={**changed, "chosen_orders": chosen})
        return {option.name for option in describe_options(model)}

    every = names(orders=("raster", "shortlist"), group_sizes=("constant", "adaptive"))
    assert {"repulsion", "candidates", "entropy_bound", "guidance"} <= every
    assert every - names(orders=("raster", "confidence"), group_sizes=("constant", "adaptive")) == {"candidates"}
    raster = names(orders=("raster",), group_sizes=("constant",))
    assert every - raster == {"repulsion", "candidates", "entropy_bound"}


def test_openais_quality_leaves_the_steps_to_the_list() -> None:
    asked = ImagesRequest(prompt="x", quality="high", group_sizes=[4, 2]).to_generation(MODEL)
    assert resolve(asked, MODEL, SETTINGS).steps == 2


def test_chosen_seeds_differ() -> None:
    seeds = {resolve(GenerationRequest(prompt="x"), MODEL, SETTINGS).seed for _ in range(20)}
    assert len(seeds) > 15
    assert max(seeds) < 2**31
