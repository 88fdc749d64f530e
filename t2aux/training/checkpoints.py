"""Checkpoints: written whole, verified, and checked against the networks before restoring."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf import trackable_object_graph_pb2

from t2aux import files
from t2aux.errors import UserError
from t2aux.losses.base import AuxiliaryLoss
from t2aux.model import weights
from t2aux.training import integrity

# Where TensorFlow keeps the graph of the saved objects.
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_NETWORKS = ("classifier", "auxiliary")


def latest(model_dir: pathlib.Path) -> str | None:
    """The path of the newest checkpoint in a run directory that is whole, or None.

    Says so where a newer one is not.

    Raises:
        UserError: There are checkpoints, and all are damaged.
    """
    directory = model_dir / "checkpoints"
    return _told(directory, integrity.newest(directory))


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
    """As `restore`, for the one checkpoint that was asked for: damage is an error.

    Raises:
        UserError: The checkpoint is missing, damaged, or of another architecture.
    """
    problem = integrity.problem(path)
    if problem:
        raise UserError(
            f"The checkpoint {path} is missing or damaged ({problem}): name another, or none for "
            "the newest that is whole."
        )
    restore(path, **objects)


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


class Manager:
    """The checkpoints of a run: writes, verifies and seals them, and removes old ones.

    Attributes:
        checkpoint: What is saved and restored.
        directory: Their folder.
        latest_checkpoint: The path of the newest that is whole, without a suffix; None: there is
            none. Known after `recover`.
    """

    def __init__(
        self, checkpoint: tf.train.Checkpoint, directory: pathlib.Path, kept: int | None
    ) -> None:
        """Keeps what is asked for.

        Args:
            checkpoint: What is saved and restored.
            directory: Their folder; made when it is needed.
            kept: How many of the newest there are, at least 2; None: all stay.
        """
        self.checkpoint = checkpoint
        self.directory = directory
        self.latest_checkpoint: str | None = None
        self._kept = kept

    def recover(self) -> str | None:
        """Finds the newest checkpoint that is whole, and clears away what is newer.

        Only for the process that has the run's lock.

        Returns:
            Its path, without a suffix; None: the run begins.

        Raises:
            UserError: There are checkpoints, and all are damaged; nothing is cleared away then.
        """
        found = integrity.newest(self.directory)
        self.latest_checkpoint = _told(self.directory, found)
        integrity.clear(self.directory, found)
        return self.latest_checkpoint

    def before(self, path: str) -> str | None:
        """The newest that is whole of those older than another; None: there is none."""
        return integrity.newest(self.directory, before=step_of(path)).path

    def go_back(self, path: str) -> None:
        """Removes what is newer than a checkpoint, from which the run goes on."""
        for step in integrity.steps(self.directory):
            if step > step_of(path):
                integrity.remove(integrity.prefix(self.directory, step))
        self.latest_checkpoint = path

    def save(self, step: int) -> None:
        """Writes the checkpoint of a step, unless it is there.

        Older ones than are to be kept are removed when it is verified.

        Raises:
            UserError: It can't be written, or does not read back. Nothing half-written is left
                behind, and the ones before it are as they were.
        """
        path = integrity.prefix(self.directory, step)
        if path == self.latest_checkpoint:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            integrity.remove(path)
            with integrity.for_tensorflow(path) as alias:
                self.checkpoint.write(alias)
            integrity.seal(path)
        except integrity.Broken as error:
            self._drop(step)
            raise UserError(
                f"The checkpoint {path} was written and does not read back ({error}): the disk or "
                f"the memory fails; use another. {self.newest()}"
            ) from error
        except (tf.errors.OpError, OSError, UserError) as error:
            self._drop(step)
            raise UserError(
                f"Can't write a checkpoint to {self.directory} ({_reason(error)}): free some space "
                "there, or make it writable, and give the same command again. " + self.newest()
            ) from error
        self.latest_checkpoint = path
        steps = integrity.steps(self.directory)
        old_steps = [] if self._kept is None else steps[: -self._kept]
        self._write_state(steps[len(old_steps) :])
        for old in old_steps:
            integrity.remove(integrity.prefix(self.directory, old))

    def newest(self) -> str:
        """A sentence that says from where a run can go on."""
        newest = self.latest_checkpoint
        return f"It will go on from {newest}." if newest else "There is no earlier checkpoint."

    def _drop(self, step: int) -> None:
        """Removes what there is of a checkpoint, temporary files too."""
        for path in self.directory.glob(f"ckpt-{step}[_.]*"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()

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


def _told(directory: pathlib.Path, found: integrity.Found) -> str | None:
    """Logs what a search came upon. Returns the path.

    Raises:
        UserError: All checkpoints are damaged.
    """
    listed = "; ".join(map(str, found.skipped))
    if found.lost:
        raise UserError(
            f"No checkpoint in {directory} is whole: {listed or 'there is none left'}. Put back a "
            f"copy of one with its {integrity.SEAL[1:]}, or remove {directory} to train anew."
        )
    if found.skipped:
        instead = f"going on from {found.path}" if found.path else "there is no earlier one"
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
        f"The checkpoint {path} is missing or damaged ({integrity.first_line(error)}): use another."
    )
