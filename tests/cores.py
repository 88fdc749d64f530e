"""Other cores than the LSTM, for tests of what works on any of them."""

import functools
from typing import NamedTuple

import gin
import tensorflow as tf

from t2aux.model import initializers
from t2aux.model.core import Core
from t2aux.model.gru import GRU
from t2aux.model.lstm import LSTM, LSTMState
from t2aux.model.mingru import MinGRU


class TracesState(NamedTuple):
    """Nested, of tensors of other shapes than [B, H], and with the name of an input."""

    segment: tf.Tensor
    traces: tuple[tf.Tensor, tf.Tensor]

    @property
    def h(self):
        return self.segment

    def as_lstm(self):
        return LSTMState(self.h, self.h)


@gin.configurable(denylist=["input_size", "hidden_size", "seed", "name"])
class Traces(Core):
    """A core such as a user may write: nothing but what `Core` demands.

    Two traces, which forget at their own rates, of a tanh of the input and the output before.
    """

    def __init__(self, input_size, hidden_size, *, seed, name="traces"):
        super().__init__(name=name)
        self.hidden_size = hidden_size
        self.kernel = initializers.glorot((input_size, hidden_size), seed, f"{name}/kernel")
        self.recurrent = initializers.glorot((hidden_size, hidden_size), seed, f"{name}/recurrent")

    def init_state(self, batch):
        h = tf.zeros([batch, self.hidden_size])
        return TracesState(h, (h, tf.zeros([batch, 2, self.hidden_size])))

    def step(self, x, state):
        new = tf.tanh(tf.matmul(x, self.kernel) + tf.matmul(state.h, self.recurrent))
        fast, slow = state.traces
        fast = 0.5 * fast + 0.5 * new
        slow = 0.9 * slow + 0.1 * tf.stack([new, fast], 1)
        h = 0.3 * (new + fast - slow[:, 0] + slow[:, 1])
        return h, TracesState(h, (fast, slow))


class Dimmed(GRU):
    """A GRU whose step is another than its class's, which its inference does not know of."""

    def step(self, x, state):
        _, after = super().step(0.5 * x, state)
        return after.h, after


class DimmedLSTM(LSTM):
    """As `Dimmed`."""

    def step(self, x, state):
        return super().step(0.5 * x, state)


# The chrono variants have the graphs of the others.
CORES = {
    "GRU": functools.partial(GRU, chrono_steps=40),
    "MinGRU": functools.partial(MinGRU, layers=2, chrono_steps=40),
    "own": Traces,
    "own step": Dimmed,
    "own step of an LSTM": DimmedLSTM,
}
