"""Every pair of values of a grid, and the rest of the grid in the long tier."""

import itertools

import pytest


def pairwise(**axes):
    """`pytest.mark.parametrize` over 3 axes or more, each with 2 values or more.

    One combination in two is left to the long tier, in a chequered pattern: each two values of two
    axes still meet.
    """
    assert len(axes) > 2
    return _chequered(axes)


def halved(**axes):
    """As `pairwise` over 2 axes: each value is met, with one in two of the other axis."""
    assert len(axes) == 2
    return _chequered(axes)


def _chequered(axes):
    assert all(len(values) > 1 for values in axes.values())
    combinations = [
        pytest.param(
            *(value for _, value in numbered),
            marks=[pytest.mark.long] if sum(number for number, _ in numbered) % 2 else [],
        )
        for numbered in itertools.product(*(enumerate(values) for values in axes.values()))
    ]
    return pytest.mark.parametrize(list(axes), combinations)
