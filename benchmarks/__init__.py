"""Benchmarks: each prints ratios against its peers, measured in the same run."""
