"""Benchmarks of the engine in this process, one file each. Times depend on the machine; compare ratios of one run."""
