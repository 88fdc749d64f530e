"""Checkpoints: saved, found, and checked against the networks before they are restored."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf import trackable_object_graph_pb2

from t2aux import files
from t2aux.errors import FileError, ModelError, UserError
from t2aux.losses.base import AuxiliaryLoss
from t2aux.model import weights
from t2aux.training import integrity

# Where TensorFlow keeps the graph of the saved objects.
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_NETWORKS = ("classifier", "auxiliary")


def latest(model_dir: pathlib.Path) -> str | None:
    """The path of the newest undamaged checkpoint in a run directory, or None.

    Logs which newer ones are damaged.

    Raises:
        UserError: There are checkpoints, and all are damaged.
    """
    directory = model_dir / "checkpoints"
    return _logged(directory, integrity.newest(directory))


def restore_latest(model_dir: pathlib.Path, **objects: tf.Module) -> str | None:
    """Restores networks from the newest checkpoint of a run, which may be training meanwhile.

    Args:
        model_dir: The run directory.
        **objects: See `restore`.

    Returns:
        The checkpoint's path, without a suffix; None: there is none.

    Raises:
        UserError: All checkpoints are damaged, or it is of another architecture.
    """
    while True:
        path = latest(model_dir)
        if path is None:
            return None
        try:
            restore(path, **objects)
            return path
        except UserError:
            # The process that trains has removed it since, for it has written newer ones.
            if pathlib.Path(f"{path}.index").exists():
                raise


def restore_named(path: str, **objects: tf.Module) -> None:
    """As `restore`, for a checkpoint that the user has named: damage is an error.

    Raises:
        UserError: The checkpoint is missing, damaged, or of another architecture.
    """
    problem = integrity.problem(path)
    if problem:
        raise ModelError(
            f"The checkpoint {path} is missing or damaged ({problem}): name another, or none for "
            "the newest undamaged one."
        )
    restore(path, **objects)


def restore(path: str, **objects: tf.Module) -> None:
    """Restores networks, after checking that the checkpoint holds exactly these.

    Args:
        path: The checkpoint's path, without a suffix.
        **objects: The networks, by the name under which `tf.train.Checkpoint` saved them.

    Raises:
        UserError: The checkpoint is damaged, or of another architecture.
    """
    check(path, **objects)
    read(tf.train.Checkpoint(**objects), path).expect_partial()


class Manager:
    """The checkpoints of a run: writes and verifies them, and removes old ones.

    Attributes:
        checkpoint: What is saved and restored.
        directory: Their folder.
        latest_checkpoint: The path of the newest undamaged one, without a suffix; None: there is
            none. Known after `recover`.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        directory: pathlib.Path,
        kept: int | None,
        resumed_from: Manager | None = None,
    ) -> None:
        """Keeps the parameters.

        Args:
            checkpoint: What is saved and restored.
            directory: Their folder; made when it is needed.
            kept: How many of the newest there are, at least 2; None: all stay.
            resumed_from: The checkpoints that the run is resumed from; None: these.
        """
        self.checkpoint = checkpoint
        self.directory = directory
        self.latest_checkpoint: str | None = None
        self._kept = kept
        self._resumed_from = resumed_from or self

    def recover(self) -> str | None:
        """Finds the newest undamaged checkpoint, and clears away what is newer.

        Only for the process that has the run's lock.

        Returns:
            Its path, without a suffix; None: the run begins.

        Raises:
            UserError: There are checkpoints, and all are damaged; nothing is cleared away then.
        """
        found = integrity.newest(self.directory)
        self.latest_checkpoint = _logged(self.directory, found)
        integrity.clear(self.directory, found.damaged)
        return self.latest_checkpoint

    def save(self, step: int) -> None:
        """Writes the checkpoint of a step, unless it exists.

        When it is verified, the oldest are removed beyond the number that is kept.

        Raises:
            UserError: It can't be written, or does not read back. Nothing incomplete is left
                behind, and the ones before it are as they were.
        """
        path = integrity.prefix(self.directory, step)
        if path == self.latest_checkpoint:
            return
        newest = self._resumed_from.latest_checkpoint
        resume = f"The run can be resumed from {newest}." if newest else "There is no earlier one."
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            integrity.write(self.checkpoint, path)
        except integrity.NotReadableError as error:
            raise FileError(
                f"The checkpoint {path} was written and does not read back ({error}): the disk or "
                f"the memory fails; use another. {resume}"
            ) from error
        except (tf.errors.OpError, OSError, UserError) as error:
            integrity.remove(path)
            raise FileError(
                f"Can't write a checkpoint to {self.directory} ({_reason(error)}): free some space "
                f"there, or make it writable, and give the same command again. {resume}"
            ) from error
        self.latest_checkpoint = path
        steps = integrity.steps(self.directory)
        old_steps = [] if self._kept is None else steps[: -self._kept]
        self._write_state(steps[len(old_steps) :])
        for old in old_steps:
            self.remove(old)

    def remove(self, step: int) -> None:
        """Removes the checkpoint of a step."""
        path = integrity.prefix(self.directory, step)
        integrity.remove(path)
        if self.latest_checkpoint == path:
            self.latest_checkpoint = None

    def _write_state(self, steps: list[int]) -> None:
        """Writes what `tf.train.latest_checkpoint` reads. Nothing here relies on it."""
        lines = [f'model_checkpoint_path: "ckpt-{steps[-1]}"']
        lines += [f'all_model_checkpoint_paths: "ckpt-{step}"' for step in steps]
        with files.atomic_write(self.directory / integrity.STATE) as file:
            file.write("\n".join(lines) + "\n")


def named_losses(losses: Sequence[AuxiliaryLoss]) -> tf.Module:
    """The auxiliary networks as checkpoints hold them, under their names.

    So the order in which a configuration lists them does not matter.
    """
    module = tf.Module(name="auxiliary")
    for loss in losses:
        setattr(module, loss.name, weights.tree(loss))
    return module


def step_of(path: str) -> int:
    """The step of a checkpoint's path."""
    return int(path.rsplit("-", 1)[-1])


def _logged(directory: pathlib.Path, found: integrity.Found) -> str | None:
    """Logs what a search has found. Returns the path.

    Raises:
        UserError: All checkpoints are damaged.
    """
    listed = found.describe_damaged()
    if found.lost:
        raise ModelError(
            f"No checkpoint in {directory} is undamaged: {listed or 'there is none left'}. Put "
            f"back a copy of one, or remove {directory} to train from the start."
        )
    if found.damaged:
        instead = f"continuing from {found.path}" if found.path else "there is no earlier one"
        logging.warning("Not usable in %s: %s; %s.", directory, listed, instead)
    return found.path


def _reason(error: Exception) -> str:
    cause = error.__cause__
    if isinstance(cause, OSError):
        error = cause
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # TensorFlow's message names the operation and its own temporary file first.
    return integrity.first_line(error).rsplit(";", 1)[-1].split(" [Op:")[0].strip()


def read(checkpoint: tf.train.Checkpoint, path: str) -> Any:
    """Restores into a checkpoint's objects. Returns TensorFlow's load status.

    Raises:
        UserError: The checkpoint is damaged.
    """
    try:
        with integrity.for_tensorflow(path) as alias:
            return checkpoint.read(alias)
    except integrity.DAMAGE as error:
        raise _damaged(path, error) from error


def check(path: str, **objects: tf.Module) -> None:
    """Checks that a checkpoint holds exactly the variables of these networks, with their shapes.

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
    """The shapes of a checkpoint's variables by their place in the saved objects.

    Not by their keys: a variable that two objects share is stored under one of its places only.
    """
    try:
        with integrity.for_tensorflow(path) as alias:
            reader = tf.train.load_checkpoint(alias)
            shapes = reader.get_variable_to_shape_map()
            graph = trackable_object_graph_pb2.TrackableObjectGraph()
            graph.ParseFromString(reader.get_tensor(_GRAPH))
    except integrity.DAMAGE as error:
        raise _damaged(path, error) from error
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


def _damaged(path: str, error: Exception) -> UserError:
    return ModelError(
        f"The checkpoint {path} is missing or damaged ({integrity.first_line(error)}): use another."
    )
