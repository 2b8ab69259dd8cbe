"""The sequence that the backbone reads: condition, tokens, and the learned vectors that stand where a step draws more
tokens than there are to read.

Behind the condition, whose last token is entry 0, entry e foretells token e. A step that draws a group reads as many
entries: where the step before drew fewer tokens, pads fill up. That happens once: behind the first group, which is
drawn token by token, or behind the condition.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from oar_core.detail_config import TokenGroups
from oar_core.nn.tables import offsets_within

CONDITION = -1  # the entry of a condition's tokens


@dataclass(frozen=True)
class Added:
    """New entries of rows, one list, row after row; on the host."""

    counts: Int[np.ndarray, "B"]  # entries of each row
    entries: Int[np.ndarray, "M"]  # CONDITION for those of the condition
    seen: Int[np.ndarray, "M"]  # of its row's new entries, how many each sees


@dataclass(frozen=True)
class EntryLayout:
    groups: TokenGroups

    @property
    def num_pads(self) -> int:
        return self.groups.size - 1

    @property
    def pads_behind(self) -> int:
        """Behind how many tokens the pads stand."""
        return self.groups.size if self.groups.has_causal_first else 0

    @property
    def capacity(self) -> int:
        """Entries of a whole sequence, the condition aside."""
        return self.groups.num_tokens + self.num_pads

    def filled(self, num_tokens: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
        """How many entries so many tokens take, the condition aside."""
        return num_tokens + np.where(num_tokens >= self.pads_behind, self.num_pads, 0)

    def tokens_in(self, num_entries: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
        """How many tokens so many entries hold."""
        return np.where(num_entries < self.pads_behind, num_entries, num_entries - self.num_pads)

    def is_pad(self, entries: Int[np.ndarray, "M"]) -> np.ndarray:
        return (entries > self.pads_behind) & (entries <= self.pads_behind + self.num_pads)

    def token_of(self, entries: Int[np.ndarray, "M"]) -> Int[np.ndarray, "M"]:
        """The token that each entry is, which is neither a condition's nor a pad."""
        return np.where(entries <= self.pads_behind, entries - 1, entries - 1 - self.num_pads)

    def last_seen(self, entries: Int[np.ndarray, "M"]) -> Int[np.ndarray, "M"]:
        """The last entry that each sees: those that are read in one step see each other."""
        size = self.groups.size
        ends = (entries // size + 1) * size - 1
        if self.groups.has_causal_first:
            return np.where(entries < size, entries, ends)
        return ends

    def added(
        self,
        conditions: Int[np.ndarray, "B"],
        held: Int[np.ndarray, "B"],
        new_tokens: Int[np.ndarray, "B"],
    ) -> Added:
        """Rows that take in so many condition tokens (none where they are there already) and new tokens, where they
        hold `held` entries behind the condition."""
        is_new = conditions > 0
        before = np.where(is_new, 0, held)
        after = self.filled(self.tokens_in(before) * ~is_new + new_tokens)
        after = np.where(is_new | (new_tokens > 0), after, before)
        added = after - before
        counts = conditions + added
        offsets = offsets_within(counts)
        own = np.repeat(conditions, counts)
        entries = np.where(offsets < own, CONDITION, np.repeat(before, counts) + offsets - own + 1)
        behind = own + self.last_seen(entries) - np.repeat(before, counts)
        # A condition's tokens see all of it, and the pads where these stand behind it.
        of_condition = own + (self.num_pads if self.pads_behind == 0 else 0)
        return Added(counts, entries, np.where(entries == CONDITION, of_condition, behind))
