"""From a published checkpoint to a model's folder: what is the same for all families."""
