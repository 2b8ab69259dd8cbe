"""How much time previews may take."""

import math

SHARE = 0.1  # of the time: the engine needs the same cores
ROUND_SECONDS = 1.0  # that a model's round may take, unless a single picture takes longer
SMOOTHING = 0.3


class PreviewBudget:
    """Previews take their share of the time and no more, however slow they are and however many pictures run.

    Where a model's pictures are dear, a round draws few of them: a long round would hold up all other work.
    """

    def __init__(self, interval: float, batch: int) -> None:
        """Rounds lie at least `interval` seconds apart and draw up to `batch` pictures of each model."""
        self._interval = interval
        self._batch = batch
        self._picture_seconds: dict[str, float] = {}  # of a model's previews, smoothed
        self._spent = 0.0  # in this round

    def most(self, model: str) -> int:
        """How many of the model's pictures the round may draw: one as long as nobody knows what they cost."""
        cost = self._picture_seconds.get(model)
        return 1 if cost is None else min(self._batch, max(1, math.floor(ROUND_SECONDS / max(cost, 1e-6))))

    def spend(self, model: str, seconds: float, pictures: int) -> None:
        """Counts what was drawn."""
        self._spent += seconds
        if pictures:
            each = seconds / pictures
            previous = self._picture_seconds.get(model, each)
            self._picture_seconds[model] = previous + SMOOTHING * (each - previous)

    def end_round(self) -> float:
        """How many seconds to wait before the next round."""
        spent, self._spent = self._spent, 0.0
        return max(self._interval, spent * (1 / SHARE - 1))
