"""A choice by figures is right however much the machine is disturbed."""

import itertools
import random
from collections.abc import Callable, Sequence

import pytest

from oar_core.engine.contest import MARGIN, decide


def busy(truth: Sequence[float], seed: int) -> Callable[[], list[float]]:
    """A machine that is up to three times as slow from one round to the next, whose figures scatter by 15 %, and that
    is taken away altogether in one call of ten."""
    generator = random.Random(seed)

    def measure_round() -> list[float]:
        pace = generator.uniform(1, 3)
        return [
            seconds
            * pace
            * generator.lognormvariate(0, 0.15)
            * (generator.uniform(5, 50) if generator.random() < 0.1 else 1)
            for seconds in truth
        ]

    return measure_round


@pytest.mark.parametrize("truth", [(1.0, 0.6), (1.0, 1.5), (1.0, 0.75, 0.5), (1.0, 0.7, 1.2), (0.5, 1.0, 1.0)])
def test_the_quickest_way_wins_twenty_times_of_twenty_on_a_busy_machine(truth):
    best = truth.index(min(truth))
    assert [decide(busy(truth, seed)).winner for seed in range(20)] == [best] * 20


def test_an_earlier_way_is_left_for_a_gain_alone():
    assert decide(lambda: [1.0, 1.0 - MARGIN / 2]).winner == 0
    assert decide(lambda: [1.0, 1.0 - 2 * MARGIN]).winner == 1
    assert decide(lambda: [1.0, 0.5, 0.5 - MARGIN / 4]).winner == 1


def test_what_is_plain_is_decided_soon_and_what_is_not_ends_as_well():
    assert decide(lambda: [1.0, 0.5], 3).rounds == 3
    flicker = itertools.cycle([[1.0, 0.5], [1.0, 2.0]])
    assert decide(lambda: next(flicker), most_rounds=11).rounds == 11


def test_it_measures_until_it_knows_however_long_a_round_takes():
    """A second a round, as of a large network: no time is an end."""
    assert decide(lambda: [1000.0, 500.0]).winner == 1
