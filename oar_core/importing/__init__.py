"""Import of published checkpoints: the part that is the same for all families."""
