"""Which class a prompt names, among the thousand of ImageNet."""

import contextlib
import time

import pytest

from oar_core.models.classes import ClassConditioner, class_names
from oar_wire.classes import ClassNames
from oar_wire.options import BadOption

IMAGENET = ClassNames(class_names(1000), 1000)


def test_imagenet_has_a_thousand_names_and_each_names_its_own_class() -> None:
    names = class_names(1000)
    assert len(set(names)) == 1000
    assert [names[number] for number in (0, 1, 207, 999)] == ["tench", "goldfish", "golden retriever", "toilet tissue"]
    assert [IMAGENET.find(name) for name in names] == list(range(1000))
    assert [IMAGENET.find(str(number)) for number in range(1000)] == list(range(1000))


@pytest.mark.parametrize(
    ("prompt", "name", "is_exact"),
    [
        ("golden retriever", "golden retriever", True),
        ("  Golden_Retriever ", "golden retriever", True),
        ("207", "golden retriever", True),
        ("a golden retriever in the snow, 4k", "golden retriever", False),
        ("two golden retrievers", "golden retriever", False),
        ("golden retreiver", "golden retriever", False),
        ("an English setter beside a volcano", "English setter", False),
        ("Cardigan", "Cardigan", True),
        ("cardigan", "cardigan", True),
        ("CARDIGAN", "cardigan", True),
    ],
)
def test_a_prompt_draws_the_class_that_it_names_or_the_nearest(prompt: str, name: str, is_exact: bool) -> None:
    chosen = IMAGENET.choose(prompt)
    assert (chosen.name.lower(), chosen.is_exact) == (name.lower(), is_exact)
    assert IMAGENET.name(chosen.index) == chosen.name


@pytest.mark.parametrize("prompt", ["quantum chromodynamics", "1000", "12345678901234567890", "ὦ"])
def test_a_prompt_that_is_like_no_class_is_refused(prompt: str) -> None:
    with pytest.raises(BadOption, match="is no class of this model, nor a number from 0 to 999"):
        IMAGENET.choose(prompt)


def test_a_long_prompt_costs_little() -> None:
    """What is compared by its spelling is bounded."""
    for text in ("x " * 50_000, "golden " * 20_000):
        start = time.process_time()
        with contextlib.suppress(BadOption):
            IMAGENET.choose(text)
        print(f"{len(text)} characters: {time.process_time() - start:.3f} s")  # noqa: T201


def test_training_does_not_guess() -> None:
    conditioner = ClassConditioner.of(("tench", "goldfish"), 2)
    assert conditioner.encode("gold fish", max_length=1) == (1,)
    assert conditioner.encode_captions(["goldfish", ""], max_length=1) == [(1,), (2,)]
    with pytest.raises(Exception, match="did you mean 'goldfish'"):
        conditioner.encode_captions(["gold fish"], max_length=1)
