"""Reproduction of the paper's tables and figures: published numbers, runs, and the report."""
