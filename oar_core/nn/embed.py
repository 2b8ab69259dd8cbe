"""Embeddings of condition tokens, image tokens and queries."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class ConditionEmbedding(nn.Module):
    """Text tokens or class labels, each with its place in the prompt."""

    def __init__(self, vocab_size: int, max_length: int, width: int, *, has_table: bool = True) -> None:
        super().__init__()
        self.max_length = max_length
        self.token = nn.Embedding(vocab_size, width)
        self.place = nn.Embedding(max_length, width) if has_table else None

    def forward(self, ids: Int[Tensor, "B P"]) -> Float[Tensor, "B P D"]:
        assert ids.shape[1] <= self.max_length, f"a condition of {ids.shape[1]} tokens"
        return self.token(ids) if self.place is None else self.token(ids) + self.place.weight[: ids.shape[1]]


class TokenEmbedding(nn.Module):
    """Image tokens with their absolute position, which rotary angles alone would not tell."""

    def __init__(self, vocab_size: int, num_positions: int, width: int, *, has_table: bool = True) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(num_positions, width) if has_table else None

    def forward(self, token_ids: Int[Tensor, "*S"], positions: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        return self.token(token_ids) if self.position is None else self.token(token_ids) + self.position(positions)


class QueryEmbedding(nn.Module):
    """One learned vector for every target, plus a table by position.

    Rotary angles tell a query its place relative to what it sees. Before any token is committed it may see one unturned
    condition key alone, and attention over one key gives the same at every position: the table tells them apart. It
    starts at zero, so that what is shared between positions is learned as shared.
    """

    def __init__(self, num_positions: int, width: int, *, has_table: bool = True) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.empty(width))
        self.position = nn.Embedding(num_positions, width) if has_table else None

    def forward(self, positions: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        if self.position is None:
            return self.shared.expand(*positions.shape, -1)
        return self.shared + self.position(positions)
