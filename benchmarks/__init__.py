"""Benchmarks. Each prints ratios to other implementations, measured in the same run."""
