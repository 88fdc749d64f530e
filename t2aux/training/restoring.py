"""Restores networks from a run's checkpoints, after checking that the variables match."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from t2aux.errors import ModelError, UserError
from t2aux.losses.base import AuxiliaryLoss
from t2aux.model import weights
from t2aux.training import checkpoints

# The key under which TensorFlow stores the graph of the saved objects.
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_NETWORKS = ("classifier", "auxiliary")


def restore_latest(model_dir: pathlib.Path, **objects: tf.Module) -> str | None:
    """Restores networks from the newest checkpoint of a run, which may still be training.

    Args:
        model_dir: The run directory.
        **objects: See `restore`.

    Returns:
        The checkpoint's path, without a suffix, or None without a checkpoint.

    Raises:
        UserError: All checkpoints are damaged, or the newest one has another architecture.
    """
    while True:
        path = checkpoints.latest(model_dir)
        if path is None:
            return None
        try:
            restore(path, **objects)
            return path
        except UserError:
            # The training process may have removed it after writing newer ones.
            if pathlib.Path(f"{path}.index").exists():
                raise


def restore(path: str, **objects: tf.Module) -> None:
    """Restores networks, after checking that the checkpoint holds exactly their variables.

    Args:
        path: The checkpoint's path, without a suffix.
        **objects: The networks, by the names under which `tf.train.Checkpoint` saved them.

    Raises:
        UserError: The checkpoint is damaged or has another architecture.
    """
    if wrong := checkpoints.problem(path):
        raise checkpoints.damaged_error(path, wrong)
    check(path, **objects)
    checkpoints.read(tf.train.Checkpoint(**objects), path).expect_partial()


def named_losses(losses: Sequence[AuxiliaryLoss]) -> tf.Module:
    """The auxiliary networks as stored in checkpoints, under their names.

    So their order in a configuration does not matter.
    """
    module = tf.Module(name="auxiliary")
    for loss in losses:
        setattr(module, loss.name, weights.tree(loss))
    return module


def step_of(path: str) -> int:
    """The step in a checkpoint's path."""
    return int(path.rsplit("-", 1)[-1])


def check(path: str, **objects: tf.Module) -> None:
    """Checks that a checkpoint holds exactly the variables of these networks, in the same shapes.

    Args:
        path: The checkpoint's path, without a suffix.
        **objects: See `restore`.

    Raises:
        UserError: See `restore`.
    """
    stored = _stored_shapes(path)
    for name, module in objects.items():
        expected = {
            "/".join([name, *map(str, place)]): variable.shape.as_list()
            for place, variable in module._flatten(
                predicate=lambda x: isinstance(x, tf.Variable), with_path=True
            )
        }
        found = {key: shape for key, shape in stored.items() if key.startswith(f"{name}/")}
        for key in [*expected, *found]:
            needed, has = expected.get(key, "no such variable"), found.get(key, "none")
            if needed != has:
                raise ModelError(
                    f"The checkpoint {path} is of another architecture: the configuration needs "
                    f"{needed} as {key}, and the checkpoint has {has}. Use the configuration it "
                    "was trained with, or another --model_dir."
                )


def _stored_shapes(path: str) -> dict[str, list[int]]:
    """The shapes of a checkpoint's variables by their path in the saved objects.

    Not by key, because a variable that two objects share is stored under the key of only one path.
    """
    try:
        with checkpoints.for_tensorflow(path) as alias:
            reader = tf.train.load_checkpoint(alias)
            shapes = reader.get_variable_to_shape_map()
            graph = trackable_object_graph_pb2.TrackableObjectGraph()
            graph.ParseFromString(reader.get_tensor(_GRAPH))
    except checkpoints.DAMAGE as error:
        raise checkpoints.damaged_error(path, checkpoints.first_line(error)) from error
    found: dict[str, list[int]] = {}

    def walk(node_id: int, place: str) -> None:
        node = graph.nodes[node_id]
        for attribute in node.attributes:
            found[place] = list(shapes[attribute.checkpoint_key])
        for child in node.children:
            walk(child.node_id, f"{place}/{child.local_name}")

    for child in graph.nodes[0].children:
        # The optimizer refers back to the networks' variables.
        if child.local_name in _NETWORKS:
            walk(child.node_id, child.local_name)
    return found
