"""Checkpoints: written whole, and checked against the networks before they are restored."""

from __future__ import annotations

import pathlib

import tensorflow as tf

from t2aux.errors import UserError

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def latest(model_dir: pathlib.Path) -> str | None:
    """The newest checkpoint's path in a run directory, or None."""
    return tf.train.latest_checkpoint(str(model_dir / "checkpoints"))


def restore(path: str, **objects: tf.Module) -> None:
    """Restores networks, after checking that the checkpoint holds just these.

    Args:
        path: The checkpoint's path, without a suffix.
        **objects: The networks, by the name under which `tf.train.Checkpoint` saved them.

    Raises:
        UserError: The checkpoint is damaged, or of another architecture.
    """
    check(path, **objects)
    tf.train.Checkpoint(**objects).restore(path).expect_partial()


def check(path: str, **objects: tf.Module) -> None:
    """Checks that a checkpoint holds just the variables of these networks, with their shapes.

    Args:
        path: The checkpoint's path, without a suffix.
        **objects: See `restore`.

    Raises:
        UserError: See `restore`.
    """
    try:
        stored = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(
            f"The checkpoint {path} is missing or damaged ({_first_line(error)}). Remove it to go "
            "on from the one before it, or train anew in another --model_dir."
        ) from error
    for name, module in objects.items():
        own = {
            "/".join([name, *map(str, p)]) + _VALUE: variable
            for p, variable in module._flatten(
                predicate=lambda x: isinstance(x, tf.Variable), with_path=True
            )
        }
        for key, variable in own.items():
            shape = stored.get(key)
            if shape is None or list(shape) != variable.shape.as_list():
                there = "does not have it" if shape is None else f"has it as {list(shape)}"
                raise UserError(_other_architecture(path, key, variable.shape.as_list(), there))
        for key in stored:
            # Optimizer slots are stored under the optimizer's own name.
            if key.startswith(f"{name}/") and key.endswith(_VALUE) and key not in own:
                raise UserError(_other_architecture(path, key, None, "has it"))


def _other_architecture(key_path: str, key: str, shape: list[int] | None, there: str) -> str:
    variable = key.removesuffix(_VALUE)
    wanted = "no such variable" if shape is None else f"{shape}"
    return (
        f"The checkpoint {key_path} is of another architecture: the configuration asks for "
        f"{wanted} as {variable}, and the checkpoint {there}. Use the configuration it was trained "
        "with, or another --model_dir."
    )


def _first_line(error: Exception) -> str:
    return (getattr(error, "message", None) or str(error)).strip().splitlines()[0].rstrip(".")
