"""The weights of networks by name: their places in checkpoints, and their order.

Keras's own names depend on what was created before in the same process, and TensorFlow's
checkpoints do not find weights that Keras keeps in lists. So a network is mirrored as a `tf.Module`
with its variables under the names of its attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf


def tree(network: keras.layers.Layer) -> tf.Module:
    """The variables of a network, nested under the names of its attributes.

    Attributes whose names begin with an underscore are omitted. A class can rename attributes with
    the dictionary `checkpoint_names`: "" replaces an attribute by its own attributes, and None
    omits it.

    Args:
        network: The network; its weights must exist.

    Returns:
        A module whose attributes are the network's: variables, such modules, and lists of them.
    """
    module = tf.Module(name=network.name)
    names: Mapping[str, str | None] = getattr(network, "checkpoint_names", {})
    for attribute, value in vars(network).items():
        name = names.get(attribute, attribute)
        mirrored = None if attribute.startswith("_") or name is None else _mirror(value)
        if mirrored is None:
            continue
        inner = {name: mirrored} if name else dict(vars(mirrored))
        for inner_name, part in inner.items():
            if not inner_name.startswith("_"):
                setattr(module, inner_name, part)
    if type(network).__module__.startswith("keras."):
        # Keras's layers keep some variables in attributes that begin with an underscore.
        found = {id(v) for v in module.variables}
        for variable in network.weights:
            if id(variable.value) not in found:
                setattr(module, variable.name, variable.value)
    return module


def in_order(network: keras.layers.Layer) -> list[tf.Variable]:
    """The trainable variables of a network, in the order of their names in `tree`."""
    return list(tree(network).trainable_variables)


def _mirror(value: Any) -> Any:
    if isinstance(value, keras.Variable):
        return value.value
    if isinstance(value, keras.layers.Layer):
        return tree(value)
    if isinstance(value, (list, tuple)):
        mirrored = [_mirror(item) for item in value]
        return mirrored if mirrored and all(item is not None for item in mirrored) else None
    return None
