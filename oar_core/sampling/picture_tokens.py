"""The tokens of one picture, in decode order."""

from oar_core.sampling.request import KnownTokens
from oar_core.sampling.revision import DIGITS, DecodedTokens
from oar_core.sampling.rows import DecodedGroup


class PictureTokens:
    """Given tokens, then drawn ones."""

    def __init__(self, known: KnownTokens, num_tokens: int) -> None:
        self.positions = list(known.positions)
        self.token_ids = list(known.token_ids)
        self.num_given = known.num_given
        self._surprises = list(known.surprises)
        self._unknown = set(range(num_tokens)).difference(known.positions)

    @property
    def num_decoded(self) -> int:
        return len(self.positions) - self.num_given

    @property
    def is_complete(self) -> bool:
        return not self._unknown

    @property
    def num_unknown(self) -> int:
        return len(self._unknown)

    @property
    def unknown(self) -> tuple[int, ...]:
        """Positions without a token, ascending."""
        return tuple(sorted(self._unknown))

    @property
    def by_position(self) -> tuple[int, ...]:
        """The tokens known so far, in the order of their positions."""
        return tuple(token_id for _, token_id in sorted(zip(self.positions, self.token_ids)))

    @property
    def decoded(self) -> DecodedTokens:
        start = self.num_given
        return DecodedTokens(self.positions[start:], self.token_ids[start:], self._surprises)

    def add(self, group: DecodedGroup, *, has_surprises: bool) -> list[float | None]:
        """Takes in what a step decoded; returns the rounded surprise of each token where they are kept."""
        self.positions += group.positions
        self.token_ids += group.token_ids
        self._unknown.difference_update(group.positions)
        if not has_surprises:
            return [None] * len(group.positions)
        rounded = [round(value, DIGITS) for value in group.surprises]
        self._surprises += rounded
        return [*rounded]
