"""Finds the fastest of several ways to do one thing, by figures that other work on the machine disturbs."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LEAST_ROUNDS = 6
MOST_ROUNDS = 40
MARGIN = 0.05  # of the time; what a later way has to gain over an earlier one
CONFIDENCE = 4.0  # standard errors
# Three quarters of normal figures lie within 1.15 standard deviations; the error of a median is 1.25 of a mean's.
SPREAD = 0.75
MEDIAN_ERROR = 1.2533 / 1.1503


@dataclass(frozen=True)
class Outcome:
    winner: int
    ratios: tuple[float, ...]  # the seconds of each way over those of the first, in the median round
    rounds: int


def decide(
    measure_round: Callable[[], Sequence[float]], least_rounds: int = LEAST_ROUNDS, most_rounds: int = MOST_ROUNDS
) -> Outcome:
    """The first way that none beats by more than `MARGIN`: put those first that are to be left for a gain alone.

    `measure_round` does all ways once, in turn, and returns the seconds of each. What else the machine does falls on
    all ways of a round alike, so ways are compared within rounds; and a round that was interrupted changes no median.
    Rounds go on until the figures say which way is the quickest, as surely as `CONFIDENCE` asks, or that it does not
    matter: what bounds them is their number and not the time, so that a large network is decided as surely as a small
    one. After `most_rounds` the medians decide.
    """
    rounds: list[list[float]] = []
    while len(rounds) < most_rounds:
        rounds.append([math.log(max(seconds, 1e-9)) for seconds in measure_round()])
        if len(rounds) >= least_rounds and _is_settled(rounds):
            break
    ratios = [_slower(rounds, way, 0)[0] for way in range(len(rounds[0]))]
    winner = next(way for way, ratio in enumerate(ratios) if ratio <= min(ratios) + MARGIN)
    return Outcome(winner, tuple(map(math.exp, ratios)), len(rounds))


def _is_settled(rounds: Sequence[Sequence[float]]) -> bool:
    ways = range(len(rounds[0]))
    best = min(ways, key=lambda way: _slower(rounds, way, 0)[0])
    for way in ways:
        slower, error = _slower(rounds, way, best)
        # An earlier way is left for a gain of MARGIN; a later one that is no more than that quicker is not taken.
        if way < best and abs(slower - MARGIN) <= error:
            return False
        if way > best and slower + MARGIN <= error:
            return False
    return True


def _slower(rounds: Sequence[Sequence[float]], way: int, other: int) -> tuple[float, float]:
    """Measures how much slower one way is than the other, as a logarithm, and the error of that."""
    differences = [each[way] - each[other] for each in rounds]
    middle = statistics.median(differences)
    deviations = sorted(abs(difference - middle) for difference in differences)
    deviation = deviations[math.ceil(SPREAD * len(deviations)) - 1]
    return middle, CONFIDENCE * MEDIAN_ERROR * deviation / math.sqrt(len(differences))
