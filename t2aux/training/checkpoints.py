"""Checkpoints: written whole, and checked against the networks before they are restored."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import tensorflow as tf
from google.protobuf import message as protobuf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from t2aux.errors import UserError

# Where TensorFlow keeps the graph of the saved objects.
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_NETWORKS = ("classifier", "auxiliary")
# What TensorFlow raises for missing, cut and changed files.
_DAMAGE = (tf.errors.OpError, ValueError, IndexError, RuntimeError, protobuf.DecodeError)


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
    read(tf.train.Checkpoint(**objects), path).expect_partial()


def save(manager: tf.train.CheckpointManager, step: int) -> None:
    """Writes the checkpoint of a step.

    Raises:
        UserError: It can't be written. Nothing half-written is left behind.
    """
    try:
        manager.save(checkpoint_number=step)
    except (tf.errors.OpError, OSError) as error:
        for path in pathlib.Path(manager.directory).glob(f"ckpt-{step}[_.]*"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        # TensorFlow's message names the operation and its own temporary file first.
        reason = _first_line(error).rsplit(";", 1)[-1].split(" [Op:")[0].strip()
        raise UserError(
            f"Can't write a checkpoint to {manager.directory} ({reason}): free some space there, "
            f"or make it writable, and give the same command again. {newest_of(manager)}"
        ) from error


def newest_of(manager: tf.train.CheckpointManager) -> str:
    """A sentence that says from where a run can go on."""
    newest = manager.latest_checkpoint
    return f"It will go on from {newest}." if newest else "There is no earlier checkpoint."


def read(checkpoint: tf.train.Checkpoint, path: str) -> Any:
    """Restores into a checkpoint's objects. Returns TensorFlow's load status.

    Raises:
        UserError: The checkpoint is damaged.
    """
    try:
        return checkpoint.restore(path)
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def check(path: str, **objects: tf.Module) -> None:
    """Checks that a checkpoint holds just the variables of these networks, with their shapes.

    Args:
        path: The checkpoint's path, without a suffix.
        **objects: See `restore`.

    Raises:
        UserError: See `restore`.
    """
    stored = _stored_shapes(path)
    for name, module in objects.items():
        own = {
            "/".join([name, *map(str, place)]): variable.shape.as_list()
            for place, variable in module._flatten(
                predicate=lambda x: isinstance(x, tf.Variable), with_path=True
            )
        }
        for key, shape in own.items():
            if stored.get(key) != shape:
                there = f"has it as {stored[key]}" if key in stored else "does not have it"
                raise UserError(_other_architecture(path, key, str(shape), there))
        for key in stored:
            if key.startswith(f"{name}/") and key not in own:
                raise UserError(_other_architecture(path, key, "no such variable", "has it"))


def _stored_shapes(path: str) -> dict[str, list[int]]:
    """The shapes of a checkpoint's variables by their place in the saved objects.

    Not by their keys: a variable that two objects share is stored under one of its places only.
    """
    try:
        reader = tf.train.load_checkpoint(path)
        shapes = reader.get_variable_to_shape_map()
        graph = trackable_object_graph_pb2.TrackableObjectGraph()
        graph.ParseFromString(reader.get_tensor(_GRAPH))
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    found: dict[str, list[int]] = {}

    def walk(node_id: int, place: str) -> None:
        node = graph.nodes[node_id]
        for attribute in node.attributes:
            found[place] = list(shapes[attribute.checkpoint_key])
        for child in node.children:
            walk(child.node_id, f"{place}/{child.local_name}")

    for child in graph.nodes[0].children:
        # The optimizer refers back to the networks' variables; its own are not asked for.
        if child.local_name in _NETWORKS:
            walk(child.node_id, child.local_name)
    return found


def _other_architecture(path: str, variable: str, wanted: str, there: str) -> str:
    return (
        f"The checkpoint {path} is of another architecture: the configuration asks for {wanted} as "
        f"{variable}, and the checkpoint {there}. Use the configuration it was trained with, or "
        "another --model_dir."
    )


def _damaged(path: str, error: Exception) -> UserError:
    return UserError(
        f"The checkpoint {path} is missing or damaged ({_first_line(error)}). Remove its files and "
        "its line in the file 'checkpoint' beside them to go on from the one before it, or train "
        "anew in another --model_dir."
    )


def _first_line(error: Exception) -> str:
    return (getattr(error, "message", None) or str(error)).strip().splitlines()[0].rstrip(".")
