"""What reading texts takes of memory, whatever they are read from."""

import tracemalloc

from tests.sources import read

# All texts together are larger than the memory that is allowed.
LONG = "".join(map(chr, range(97, 123))) * 4_000
TEXTS = 400


def assert_held_one_at_a_time(**arguments):
    """Reads TEXTS texts, each a number, a space and LONG; returns their DatasetInfo."""
    tracemalloc.start()
    try:
        info, texts = read("train", **arguments)
        total = sum(len(ids) for ids in texts.sequences())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == texts.nbytes > TEXTS * len(LONG)
    # Of these, 9 MB each are the counts of all code points, and their order.
    assert peak < 30_000_000
    return info
