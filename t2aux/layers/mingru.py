"""minGRU as a Keras layer: a recurrence that is trained with a parallel scan."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from t2aux.errors import SettingError
from t2aux.model import core, inputs
from t2aux.model.mingru import MinGRURecurrence, MinGRUState


@keras.saving.register_keras_serializable(package="t2aux")
class MinGRU(MinGRURecurrence):
    """Stacked minGRU layers (Feng et al. 2024, arXiv 2410.01201, section 3.1).

    The gates and candidates depend on the input only, so all steps of a layer are computed in
    parallel. It is called like Keras's recurrent layers:

    >>> layer = t2aux.layers.MinGRU(8, return_sequences=True)
    >>> layer(tf.zeros([4, 100, 3])).shape
    TensorShape([4, 100, 8])

    Call arguments:
        sequence: [batch, steps, features].
        initial_state: The outputs of all layers before the first step, bottom first, [batch, units]
            each; zeros by default.
        mask: [batch, steps] bool; state and output do not change at a step where it is false.

    Returns:
        The last output [batch, units], or, with `return_sequences`, all outputs [batch, steps,
        units]. With `return_state`, also the last outputs of all layers, bottom first, [batch,
        units] each.
    """

    # Keras's Bidirectional reads them.
    stateful = False
    states = None

    def __init__(
        self,
        units: int,
        *,
        layers: int = 3,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        **kwargs: Any,
    ) -> None:
        """Stores the parameters.

        Args:
            units: H, the size of every layer's output.
            layers: The number of stacked layers. The gates of a single layer depend on the current
                token only.
            kernel_initializer: The initializer of the kernels ([D, 2H] for the bottom layer,
                [H, 2H] for the others), which hold the update gate, then the candidate.
            bias_initializer: The initializer of the biases [2H].
            return_sequences: Whether to return all outputs instead of the last one.
            return_state: Whether to return the last outputs of all layers, too.
            go_backwards: Whether to read the sequence from its end.
            **kwargs: Arguments of `keras.layers.Layer`.

        Raises:
            UserError: A size is below 1.
        """
        super().__init__(**kwargs)
        core.check_sizes("MinGRU", units=units, layers=layers)
        if self.dtype_policy.compute_dtype != "float32":
            raise SettingError(
                f"MinGRU computes in float32, but its dtype is {self.dtype_policy.name}: give "
                'dtype="float32".'
            )
        self.units = units
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.supports_masking = True
        self._layers_count = layers
        self._kernel_initializer = keras.initializers.get(kernel_initializer)
        self._bias_initializer = keras.initializers.get(bias_initializer)

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.units

    @property
    def is_standard(self) -> bool:
        """Whether the recurrence is the one that `t2aux.model.mingru` computes."""
        return True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights for inputs [batch, steps, features]."""
        sizes = [input_shape[-1], *[self.units] * (self._layers_count - 1)]
        self.kernels, self.biases = [], []
        for i, size in enumerate(sizes):
            shape = (size, 2 * self.units)
            # A copy for each layer, because an initializer returns the same values at each call.
            kernel, bias = (
                keras.initializers.get(keras.initializers.serialize(initializer))
                for initializer in (self._kernel_initializer, self._bias_initializer)
            )
            self.kernels.append(self.add_weight(shape, kernel, name=f"kernel_{i}"))
            self.biases.append(self.add_weight(shape[1:], bias, name=f"bias_{i}"))

    def call(
        self,
        sequence: tf.Tensor,
        initial_state: list[tf.Tensor] | None = None,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor | list[tf.Tensor]:
        """See the class."""
        if self.go_backwards:
            sequence = tf.reverse(sequence, [1])
            mask = None if mask is None else tf.reverse(mask, [1])
        state = self.init_state(tf.shape(sequence)[0])
        if initial_state is not None:
            state = MinGRUState(tuple(initial_state))
        direct = inputs.Folded(self.kernels[0], self.biases[0], None)
        here = None if mask is None else tf.transpose(mask)[..., tf.newaxis]
        states = self.all_states(tf.transpose(sequence, [1, 0, 2]), direct, state, here)
        last = [s[-1] for s in states.layers]
        output = tf.transpose(states.h, [1, 0, 2]) if self.return_sequences else last[-1]
        return [output, *last] if self.return_state else output

    def compute_mask(self, _: Any, mask: tf.Tensor | None = None) -> Any:
        """The mask of the outputs if all are returned, else None."""
        own = mask if self.return_sequences else None
        return [own, *[None] * self._layers_count] if self.return_state else own

    def compute_output_shape(self, sequences_shape: tuple[int | None, ...]) -> Any:
        """The outputs' shapes."""
        batch, steps, _ = sequences_shape
        last = (batch, self.units)
        own = (batch, steps, self.units) if self.return_sequences else last
        return (own, *[last] * self._layers_count) if self.return_state else own

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "layers": self._layers_count,
            "kernel_initializer": keras.initializers.serialize(self._kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self._bias_initializer),
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
        }
