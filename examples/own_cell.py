"""Trains a custom RNN cell with truncated gradients and an auxiliary loss.

python examples/own_cell.py [EPOCHS]

Any Keras RNN cell can be used: a layer with a `state_size` and `call(inputs, states)`, which
returns the output and the new states. The auxiliary losses start from its first states.
"""

import sys
from typing import Any

import keras
from keras import ops
from sklearn.datasets import load_digits

import t2aux


@keras.saving.register_keras_serializable(package="examples")
class MinimalGatedUnit(keras.layers.Layer):
    """A cell with one gate, which forgets and updates (Zhou et al. 2016, "Minimal gated unit")."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        """Stores H, the size of the state and of the output."""
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights for inputs [batch, features]."""
        sizes = (input_shape[-1] + self.units, self.units)
        self.gate = self.add_weight(sizes, name="gate")
        # At first, most of the state is kept.
        self.gate_bias = self.add_weight(
            (self.units,), initializer=keras.initializers.Constant(-2.0), name="gate_bias"
        )
        self.candidate = self.add_weight(sizes, name="candidate")

    def call(self, inputs: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        """Computes one step: the output [batch, H] and the new states."""
        (h,) = states
        f = ops.sigmoid(ops.concatenate([inputs, h], -1) @ self.gate + self.gate_bias)
        new = ops.tanh(ops.concatenate([inputs, f * h], -1) @ self.candidate)
        h = (1 - f) * h + f * new
        return h, [h]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for .keras files."""
        return {**super().get_config(), "units": self.units}


def main(epochs: int) -> float:
    """Trains on scikit-learn's digits, pixel by pixel. Returns the test accuracy."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    x, y = (digits.images / 16).reshape(-1, 64, 1).astype("float32"), digits.target
    model = t2aux.SequenceClassifier(
        classes=10,
        core=MinimalGatedUnit(64),
        auxiliary=[t2aux.losses.Reconstruction(length=24, layers=1)],
        supervised_bptt=16,
        auxiliary_bptt=24,
    )
    model.compile(keras.optimizers.Adam(3e-3), metrics=["accuracy"])
    model.fit(x[:1400], y[:1400], epochs=epochs, batch_size=50)
    return model.evaluate(x[1400:], y[1400:], return_dict=True)["accuracy"]


if __name__ == "__main__":
    print(f"Test accuracy: {main(int(sys.argv[1]) if len(sys.argv) > 1 else 30):.1%}")
