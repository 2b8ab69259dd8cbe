"""Which resolution a prefix of tokens tells of."""


def resolution(count: int, num_tokens: int, side: int, alpha: float) -> int:
    """Pixels of a side that is `side` pixels long once all tokens are there; at least 1."""
    missing = (num_tokens - count) / (num_tokens - 1)
    return min(side, max(1, int(side - (side - 1) * missing**alpha)))


def in_whole_patches(pixels: int, patch_size: int) -> int:
    """The side of the canvas that holds so many pixels of a side."""
    return -(-pixels // patch_size) * patch_size
