"""`SequenceClassifier`: the method as a Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from t2aux import layers
from t2aux.data import Batch
from t2aux.errors import DataError, FileError, ModelError, SettingError
from t2aux.kernels import ops
from t2aux.losses.base import AuxiliaryLoss, Bptt, Network, as_list
from t2aux.model import inputs
from t2aux.model.cell import as_core
from t2aux.model.classifier import BaseClassifier, check_parameters
from t2aux.model.heads import Head
from t2aux.training import arrays, optimizers, trainer, truncation
from t2aux.training.callbacks import PhaseProgress, Pretrain
from t2aux_ondevice.preprocessing import DatasetInfo


@keras.saving.register_keras_serializable(package="t2aux")
class SequenceClassifier(BaseClassifier):
    """A Keras model that classifies long sequences, trained with truncation and auxiliary losses.

    It reads a sequence token by token, real values [batch, steps, channels] or ids [batch, steps],
    and predicts the class probabilities [batch, classes] from the state at its end. In training,
    the supervised gradient goes back `supervised_bptt` steps and that of each auxiliary loss
    `auxiliary_bptt` steps (paper, section 3), so memory does not grow with the sequences' length.

    >>> model = t2aux.SequenceClassifier(
    ...     classes=10,
    ...     core=t2aux.layers.LSTM(32),
    ...     auxiliary=[t2aux.losses.Reconstruction(length=40, weight=20.0)],
    ...     supervised_bptt=16,
    ...     auxiliary_bptt=40,
    ... )
    >>> model.compile(keras.optimizers.RMSprop(3e-3), metrics=["accuracy"])
    >>> history = model.fit(x, y, batch_size=16, validation_split=0.1, epochs=2, verbose=0)
    >>> model.predict(x, verbose=0).shape  # x: [48, 64, 1]
    (48, 10)

    Sequences of different lengths can be a list of arrays, a `tf.RaggedTensor`, or a pair (inputs,
    lengths) with padding at the end. Instead of lengths [batch], a mask [batch, steps] can be
    given, with padding anywhere. A `tf.data.Dataset` can contain such pairs, too, as (pair, label)
    or, for `predict`, (pair,).

    `t2aux.load(path).model` loads what `save` wrote. `keras.saving.load_model(path)` does, too, if
    Keras was imported before t2aux or `t2aux.SequenceClassifier` was used. The default `loss` of
    `compile` is the cross-entropy with labels [batch] or one-hot [batch, classes]; another loss
    receives labels and probabilities. `sample_weight` applies to the supervised loss only.

    Attributes:
        classes: The names of the classes, by label.
        auxiliary: The auxiliary losses.
        info: The data set that it was made for, see `t2aux.training.classifier`; None if unknown.
        trainer: Computes the training steps; None before the model has weights.
    """

    def __init__(
        self,
        classes: int | Sequence[str],
        *,
        core: keras.layers.Layer | type[keras.layers.Layer] | str = "lstm",
        vocabulary_size: int | None = None,
        projection_size: int | None = 128,
        head_size: int = 256,
        dropconnect: float = 0.5,
        noise: float = 0.0,
        auxiliary: Sequence[AuxiliaryLoss] = (),
        supervised_bptt: Bptt = 300,
        auxiliary_bptt: Bptt = 300,
        precision: ops.Precision | None = None,
        clip_norm: float | None = 1.0,
        seed: int = 0,
        name: str = "sequence_classifier",
        **kwargs: Any,
    ) -> None:
        """Stores the parameters; the default sizes are the paper's (section 4).

        Args:
            classes: The number of classes, or their names.
            core: The recurrence: `t2aux.layers.LSTM(128)`, `.GRU` or `.MinGRU`; any Keras recurrent
                layer or RNN cell; or a class or name of these layers, see `t2aux.layers.get`.
            vocabulary_size: V, if the sequences are ids below V. None: they are real values.
            projection_size: The size to which a token is projected (real values) or embedded (ids).
                None: the core reads real values unchanged.
            head_size: The number of hidden units of the head.
            dropconnect: The drop probability of the weights of the head's second layer in training.
            noise: The standard deviation of the Gaussian noise that is added to real values in
                training, after they are normalised.
            auxiliary: Auxiliary losses, see `t2aux.losses`.
            supervised_bptt: Steps that the supervised gradient goes back; "full", or 0 for none.
            auxiliary_bptt: Steps that the gradient of each auxiliary loss without its own `bptt`
                goes back; "full", or 0 for none.
            precision: The precision of LSTM products in training, see `t2aux.layers.LSTM`; None:
                that of the core.
            clip_norm: The maximum global norm of the gradient; None: no clipping [us].
            seed: The seed of all randomness in training and of the initial weights of the head and
                the auxiliary networks. The core's own initializers give its initial weights.
            name: The model's name.
            **kwargs: Arguments of `keras.Model`.

        Raises:
            UserError: A parameter is out of range.
        """
        super().__init__(name=name, **kwargs)
        arrays.check_dtype(self.dtype_policy)
        self.classes = arrays.class_names(classes)
        self._sizes = {
            "vocabulary_size": vocabulary_size,
            "projection_size": projection_size,
            "head_size": head_size,
            "dropconnect": dropconnect,
            "noise": noise,
        }
        check_parameters("SequenceClassifier", is_text=vocabulary_size is not None, **self._sizes)
        self.auxiliary = as_list(auxiliary)
        self._given_core = layers.get(core)
        self._bptt = {"supervised_bptt": supervised_bptt, "auxiliary_bptt": auxiliary_bptt}
        for parameter, bptt in self._bptt.items():
            truncation.check_bptt(parameter, bptt)
        ops.check_precision("precision", "float32" if precision is None else precision)
        self._precision = precision
        if clip_norm is not None and not (isinstance(clip_norm, (int, float)) and clip_norm > 0):
            raise SettingError(f"clip_norm must be above 0, or None, but is {clip_norm!r}.")
        self._clip_norm = clip_norm
        self._seed = seed
        self.info: DatasetInfo | None = None
        self.noise = noise
        self.trainer: trainer.Trainer | None = None
        # XLA does not support our ops.
        self.supports_jit = False
        self._means = {
            name: keras.metrics.Mean(name=name)
            for name in (*(f"{loss.name}_loss" for loss in self.auxiliary), "supervised_loss")
        }
        # Whether the current phase is pretraining, see `_fit_phase`.
        self._pretraining = False
        self._phase_begin = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._phase_steps = tf.Variable(1, trainable=False, dtype=tf.int64)

    def build(self, input_shape: Any) -> None:
        """Creates the weights.

        Args:
            input_shape: The shape of the inputs, [batch, steps, channels] or [batch, steps], or the
                shapes of a pair of inputs and lengths or mask.

        Raises:
            UserError: The inputs have another shape, or an auxiliary loss needs longer sequences.
        """
        if self.trainer is not None:
            return
        ops.enabled()
        shape = arrays.shape_of_inputs(input_shape)
        sizes, vocabulary_size = self._sizes, self._sizes["vocabulary_size"]
        is_text = vocabulary_size is not None
        arrays.check_shape(shape, is_text=is_text)
        token_size = vocabulary_size if is_text else shape[2]
        self.input_layer = inputs.build(
            token_size, sizes["projection_size"], is_text=is_text, seed=self._seed
        )
        core = as_core(self._given_core)
        if not core.built:
            core.build((None, None, self.input_layer.output_size))
            core.built = True
        self.hidden_size = core.hidden_size
        self.num_classes = len(self.classes)
        self.padded = self.info is not None and self.info.length is None
        self.network = Network(
            hidden_size=core.hidden_size,
            input_size=self.input_layer.output_size,
            token_size=token_size,
            is_text=is_text,
            longest=shape[1],
            data="the inputs" if self.info is None else self.info.name,
            seed=self._seed,
        )
        self.core = core
        self.head = Head(
            core.hidden_size,
            sizes["head_size"],
            self.num_classes,
            dropconnect=sizes["dropconnect"],
            seed=self._seed,
            name="head",
        )
        precision = self._precision or getattr(core, "precision", "float32")
        self.trainer = trainer.Trainer(self, self.auxiliary, **self._bptt, precision=precision)
        self._called = True  # For `export`: `fit` calls the model's parts.

    @property
    def checkpoint_names(self) -> dict[str, str | None]:
        """See `t2aux.model.weights`; a run's checkpoints store the losses separately."""
        # The name of any other core depends on what was created before it.
        core = {} if self.info is None else {"core": self.core.name}
        return {"input_layer": "input", "auxiliary": None, **core}

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, and the data set that the model was made for."""
        serialize = keras.saving.serialize_keras_object
        return {
            "info": None if self.info is None else self.info.to_json(),
            **super().get_config(),
            "name": self.name,
            "classes": list(self.classes),
            "core": serialize(self._given_core),
            "auxiliary": [serialize(loss) for loss in self.auxiliary],
            "precision": self._precision,
            "clip_norm": self._clip_norm,
            "seed": self._seed,
            **self._sizes,
            **self._bptt,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SequenceClassifier:
        """Creates a model from the result of `get_config`."""
        deserialize = keras.saving.deserialize_keras_object
        core, auxiliary = deserialize(config["core"]), map(deserialize, config["auxiliary"])
        config = {**config, "core": core, "auxiliary": list(auxiliary)}
        info = config.pop("info", None)
        model = cls(**config)
        model.info = None if info is None else DatasetInfo.from_json(info)
        return model

    def save(self, *arguments: Any, **kwargs: Any) -> None:
        """See `keras.Model.save`, for .keras files. Raises UserError if there are no weights."""
        self._check_built("save")
        if str([*arguments, kwargs.get("filepath")][0]).endswith((".h5", ".hdf5")):
            raise FileError("Keras can't load this model from an .h5 file: save it as .keras.")
        super().save(*arguments, **kwargs)

    def save_weights(self, *arguments: Any, **kwargs: Any) -> None:
        """See `keras.Model.save_weights`. Raises UserError if there are no weights."""
        self._check_built("save_weights")
        super().save_weights(*arguments, **kwargs)

    def _check_built(self, method: str) -> None:
        if self.trainer is None:
            raise ModelError(
                f"The model has no weights yet, so {method} would write none: call fit, or "
                "build((None, steps, channels)), first."
            )

    # --- Calling ----------------------------------------------------------------------------------

    def call(
        self, inputs: Any, mask: tf.Tensor | None = None, training: bool | None = None
    ) -> tf.Tensor:
        """Computes the probabilities of the classes.

        Args:
            inputs: [B, T, C] float32 or ids [B, T]; or a pair of them and lengths [B] or a mask
                [B, T]; or a RaggedTensor.
            mask: [B, T] bool, false at padding.
            training: Whether gradients must be supported, for a model that is a part of another.
                They go through all steps, without auxiliary losses; only `fit` truncates.

        Returns:
            The probabilities [B, K].
        """
        return tf.nn.softmax(self._logits(inputs, mask, training=bool(training)))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """[B, K]."""
        return arrays.shape_of_inputs(input_shape)[0], len(self.classes)

    def _sequences(self, x: Any, mask: Any = None) -> tuple[tf.Tensor, tf.Tensor | None]:
        if self.trainer is None:
            with tf.init_scope():
                self.build(arrays.shapes(x))
        tokens, lengths = arrays.sequences(x, mask, is_text=self.network.is_text)
        wanted = (None, None) if self.network.is_text else (None, None, self.network.token_size)
        if not tokens.shape.is_compatible_with(wanted):
            raise DataError(f"The inputs have the shape {tokens.shape}, but must be {wanted}.")
        return tokens, lengths

    def _prepared(self, x: Any, y: Any) -> tuple[Any, Any]:
        channels = None if self.trainer is None else self.network.token_size
        sizes = {"channels": channels, **self._sizes}
        return arrays.prepared(x, y, classes=len(self.classes), sizes=sizes)

    def _logits(self, x: Any, mask: Any = None, *, training: bool = False) -> tf.Tensor:
        sequences = self._sequences(x, mask)
        with ops.products_in(self.trainer.precision if training else None):
            return self.logits_of(*sequences, gradient=training)

    # --- Training ---------------------------------------------------------------------------------

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """See `keras.Model.fit`, and the class for the forms of the inputs.

        If the callbacks include `t2aux.callbacks.Pretrain(n)`, the model is first trained on the
        auxiliary losses only for n epochs, without validation and the other callbacks.
        """
        with self.distribute_strategy.scope():
            has_strategy = tf.distribute.has_strategy()
        if has_strategy:
            raise SettingError(
                "SequenceClassifier.fit trains on one device, without a strategy: for several give "
                "t2aux train RunConfig.strategy, such as --gin_file=training/mirrored."
            )
        x, y = self._prepared(x, y)
        validation = kwargs.get("validation_data")
        if isinstance(validation, (list, tuple)) and len(validation) > 1:
            kwargs["validation_data"] = (*self._prepared(*validation[:2]), *validation[2:])
        callbacks = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        callbacks = [callback for callback in callbacks if callback is not None]
        for pretrain in [c for c in callbacks if isinstance(c, Pretrain)]:
            if not self.auxiliary:
                raise SettingError("Pretraining needs auxiliary losses, and the model has none.")
            pretrain.check_data(x, kwargs.get("steps_per_epoch"))
            # With the same training examples, and without evaluation.
            left_out = ("validation_data", "validation_freq", "initial_epoch")
            without = {name: v for name, v in kwargs.items() if name not in left_out}
            pretrain.history = self._fit_phase(
                x,
                y,
                pretraining=True,
                batch_size=batch_size,
                epochs=pretrain.epochs,
                verbose=verbose,
                validation_freq=pretrain.epochs + 1,
                **without,
            )
        return self._fit_phase(
            x,
            y,
            pretraining=False,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=[c for c in callbacks if not isinstance(c, Pretrain)],
            **kwargs,
        )

    def _fit_phase(
        self, x: Any, y: Any, *, pretraining: bool, callbacks: Any = (), **kwargs: Any
    ) -> keras.callbacks.History:
        if self.trainer is None and (isinstance(x, tf.data.Dataset) or y is not None):
            # Before the callbacks, because BackupAndRestore needs existing weights.
            self.build(arrays.shapes(x))
        self._pretraining = pretraining
        self.train_function = None  # It is specific to the kind of phase.
        try:
            return super().fit(x, y, callbacks=[PhaseProgress(self), *callbacks], **kwargs)
        finally:
            self._pretraining = False
            self.train_function = None

    def begin_phase(self, steps: int, done: int) -> None:
        """Begins a phase, and sets its length for everything that depends on its progress.

        Args:
            steps: The number of steps of the phase.
            done: How many of them were already made.
        """
        self._phase_steps.assign(max(steps, 1))
        self._phase_begin.assign(int(optimizers.steps_made(self.optimizer)) - done)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Makes one training step with the truncated gradients of all losses."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        tokens, lengths = self._sequences(x)
        y = arrays.checked_labels(tokens, lengths, y, classes=self.num_classes)
        number = tf.cast(optimizers.steps_made(self.optimizer), tf.int64)
        done = tf.cast(number - self._phase_begin, tf.float32)
        padded = lengths is not None
        if lengths is None:
            lengths = tf.fill(tf.shape(tokens)[:1], tf.shape(tokens)[1])
        step = self.trainer.step(
            Batch(tokens, lengths, y),
            seed=tf.stack([self._seed, tf.cast(number, tf.int32)]),
            progress=tf.clip_by_value(done / tf.cast(self._phase_steps, tf.float32), 0.0, 1.0),
            supervised=not self._pretraining,
            padded=padded,
            supervised_loss=lambda logits: self._supervised_loss(x, y, logits, sample_weight),
        )
        # Frozen variables do not change, and their gradients do not count in the norm.
        by_variable = {id(v.value): v for v in self.trainable_variables}
        pairs = zip(step.gradients, self.trainer.trained_variables(), strict=True)
        trained = [(g, by_variable[id(v)]) for g, v in pairs if id(v) in by_variable]
        gradients, variables = map(list, zip(*trained, strict=True)) if trained else ([], [])
        if self._clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm)
        if not self.optimizer.built:
            # In the order in which Keras builds the optimizer of a loaded model.
            self.optimizer.build(self.trainable_variables)
        optimizers.apply(self.optimizer, gradients, variables)
        self._loss_tracker.update_state(step.metrics["loss"], sample_weight=tf.shape(tokens)[0])
        for name, mean in self._means.items():
            if name in step.metrics:
                mean.update_state(step.metrics[name], sample_weight=tf.shape(tokens)[0])
        if self._pretraining:
            return self.get_metrics_result()
        return self.compute_metrics(x, y, tf.nn.softmax(step.logits), sample_weight)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Computes the supervised loss and the metrics of a batch."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        tokens, lengths = self._sequences(x)
        y = arrays.checked_labels(tokens, lengths, y, classes=self.num_classes)
        logits = self.logits_of(tokens, lengths)
        loss = self._supervised_loss(x, y, logits, sample_weight)
        self._loss_tracker.update_state(loss, sample_weight=tf.shape(logits)[0])
        logs = self.compute_metrics(x, y, tf.nn.softmax(logits), sample_weight)
        return {name: value for name, value in logs.items() if name not in self._means}

    def get_metrics_result(self) -> dict[str, Any]:
        """The means so far; in pretraining, those of the losses that are trained."""
        if self._pretraining:
            means = [mean for name, mean in self._means.items() if name != "supervised_loss"]
            return {mean.name: mean.result() for mean in (self._loss_tracker, *means)}
        results = super().get_metrics_result()
        if not self.auxiliary:
            # Without other losses, it equals the loss.
            results.pop("supervised_loss", None)
        return results

    def _supervised_loss(
        self, x: Any, y: tf.Tensor, logits: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tf.Tensor:
        if self.loss is not None:
            return self.compute_loss(x, y, tf.nn.softmax(logits), sample_weight)
        return arrays.cross_entropy(logits, y, sample_weight)

    def evaluate(self, x: Any = None, y: Any = None, *arguments: Any, **kwargs: Any) -> Any:
        """See `keras.Model.evaluate`, and the class for the forms of the inputs."""
        x, y = self._prepared(x, y)
        return super().evaluate(x, y, *arguments, **kwargs)

    def predict(self, x: Any, *arguments: Any, **kwargs: Any) -> np.ndarray:
        """Predicts the probabilities [N, K] of the classes; see `keras.Model.predict`."""
        x, _ = self._prepared(x, None)
        return super().predict(x, *arguments, **kwargs)
