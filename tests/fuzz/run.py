"""Runs a reader on many inputs, the same every time."""

import contextlib
import resource
import warnings

from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz import paths, readers, requests

# What a run may add to the most memory that the process ever had, whatever its inputs claim.
MAX_MIB = 1024


@contextlib.contextmanager
def all_readers(folder):
    """All readers by name; `folder` is theirs."""
    served = requests.Served(folder / "served")
    try:
        yield {
            **readers.make_all(folder),
            "paths": paths.make(folder / "paths"),
            **served.readers(),
        }
    finally:
        served.close()


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def fuzz(reader, inputs, number=0):
    """Fuzzes one reader.

    Args:
        reader: See `readers.Reader`.
        inputs: How many inputs.
        number: Of the sequence of inputs.

    Returns:
        How many inputs there were, how many were read and refused, and the MiB that the process
        grew by.
    """
    counts = {"inputs": 0, "read": 0, "refused": 0}

    @seed(number)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.inputs)
    def one(content):
        counts["inputs"] += 1
        counts["read" if reader.read(content) else "refused"] += 1

    before = peak_mib()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one()
    grown = peak_mib() - before
    assert grown < MAX_MIB, f"{grown} MiB for {inputs} inputs"
    return {**counts, "grown_mib": grown}
