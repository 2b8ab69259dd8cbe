"""The OAR library: tokenizers, the any-order backbone, orders, sampling, the engine and training."""
