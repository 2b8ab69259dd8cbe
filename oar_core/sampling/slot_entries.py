"""The tokens of a picture that its slots hold, and those that they still need."""

from collections.abc import Sequence


class SlotEntries:
    """The conditional slot is part 0, the unconditional one part 1.

    A slot holds the first of the tokens. It is owed those that are older than the latest step. Where commits are not
    free, tokens enter the cache by whole groups.
    """

    def __init__(
        self, group_ends: list[int], num_settled: int, *, has_free_groups: bool, has_free_commits: bool
    ) -> None:
        """`group_ends`: of each token, how many tokens there are at the end of its group; empty where groups are free.
        `num_settled` tokens are older than the latest step."""
        self.num_cached = [0, 0]
        self._group_ends = group_ends
        self._num_settled = num_settled
        self._has_free_groups, self._has_free_commits = has_free_groups, has_free_commits

    def owed(self, parts: Sequence[int]) -> int:
        return sum(self._num_settled - self.num_cached[part] for part in parts)

    def first_owing(self, parts: Sequence[int]) -> int:
        return next(part for part in parts if self.num_cached[part] < self._num_settled)

    def fitting(self, part: int, most: float) -> int:
        """Number of owed tokens that enter a slot together, `most` at most unless a group has more."""
        start = self.num_cached[part]
        owed = self._num_settled - start
        if owed <= most or self._has_free_commits:
            return int(min(owed, most))
        ends = [end - start for end in self._group_ends[start : self._num_settled]]
        return max((end for end in ends if end <= most), default=ends[0] if most > 0 else 0)

    def pay(self, part: int, most: float) -> slice:
        """The tokens that a slot takes in; it holds them from here on."""
        start = self.num_cached[part]
        self.num_cached[part] = start + self.fitting(part, most)
        return slice(start, self.num_cached[part])

    def seen(self, new: slice) -> tuple[int, ...] | None:
        """Number of the tokens of `new` that each of them sees, from the first; None: those up to itself."""
        if self._has_free_commits:
            return None
        return tuple(end - new.start for end in self._group_ends[new])

    def fill(self, parts: Sequence[int], end: int) -> None:
        """The slots hold the first `end` tokens from here on, and these are settled."""
        for part in parts:
            self.num_cached[part] = end
        self._num_settled = end

    def add_group(self, size: int, end: int) -> None:
        """Notes that `size` tokens were decoded together, the last of which is number `end`."""
        if not self._has_free_groups:
            self._group_ends += [end] * size
