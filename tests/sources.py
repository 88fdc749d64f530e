"""Reads data sources by the names that gin files call them.

Most tests write the training data alone, and want to read all of it: without a test set, it is not
divided unless `test_fraction` is given.
"""

import inspect

from t2aux import data
from t2aux.data import loading
from t2aux.data.source import sources


def load(split, name="digits", data_dir=None, info=None, **arguments):
    """`data.load`; the arguments are the source's and `load`'s."""
    source, others = made(name, arguments)
    return data.load(source, split, info, data_dir=data_dir, **others)


def read(split, name="digits", data_dir=None, info=None, **arguments):
    """`loading.read`, likewise."""
    source, others = made(name, arguments)
    return loading.read(source, split, info, data_dir=data_dir, **others)


def prepare(name, data_dir=None):
    """`data.prepare`."""
    return data.prepare(data.named(name), data_dir)


def made(name, arguments):
    """A source, and the arguments that are not its own."""
    source = sources().get(name, data.Tfds)
    own = inspect.signature(source).parameters
    mine = {key: value for key, value in arguments.items() if key in own}
    if source is data.Tfds:
        mine["name"] = name.removeprefix("tfds:")
    others = {key: value for key, value in arguments.items() if key not in own}
    return source(**mine), {"test_fraction": 0, **others}


def configured(split, info=None, **arguments):
    """A split of the data that gin's configuration names."""
    return data.load(data.configured(), split, info, **arguments)
