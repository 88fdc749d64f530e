"""The interface of auxiliary losses: a loss declares what it needs of the main network.

For each batch, `AuxiliaryLoss.declare` returns one of three declarations, and `AuxiliaryLoss.call`
receives what was declared, with support for gradients:

| declaration | what it requests | what `call` receives |
|---|---|---|
| `StatesAt` | the states at some positions | `States` |
| `OutputsFrom` | the outputs over a range of steps from some positions on | `Outputs` |
| `OutputsOfAll` | the outputs over whole sequences | `Outputs` |

The trainer decides how the gradient is truncated, what is computed twice and what is stored
(`t2aux.training.windows`). So a loss works with every core, with every truncation, with padding,
and with several replicas that share a batch.

Everything is time-major, [T, B, ...], with the sequences aligned at their ends: sequence b begins
at step starts[b] and ends at T. The state at position p is the state before token p is read.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import keras
import tensorflow as tf

from t2aux.configurable import Configurable
from t2aux.errors import SettingError
from t2aux.kernels import ops
from t2aux.model.core import Active, State, active_from
from t2aux.model.share import Share

if TYPE_CHECKING:
    from t2aux.model.inputs import InputLayer

Bptt = int | Literal["full"]


class Objective(NamedTuple):
    """The losses that a classifier is trained on, and how far their gradients go back.

    Attributes:
        auxiliary: The auxiliary losses, in addition to the supervised one.
        supervised_bptt: How many steps the supervised gradient goes back; "full" for all, 0 for
            none.
        auxiliary_bptt: The same for each auxiliary loss that does not set its own `bptt`.
        precision: The precision of the LSTMs' products, see `t2aux.kernels.ops`.
    """

    auxiliary: Sequence[AuxiliaryLoss] = ()
    supervised_bptt: Bptt = 300
    auxiliary_bptt: Bptt = 300
    precision: ops.Precision = "float32"


class Sequences(NamedTuple):
    """A time-major batch whose sequences are aligned at their ends.

    Attributes:
        tokens: [T, B, C] float32, or ids [T, B] int32.
        starts: [B] int32, the step at which each sequence begins.
        labels: [B] int32.
        padded: Whether sequences may begin after step 0.
        share: Which rows of a larger batch these are; None: the whole batch. The batch is larger if
            replicas share it, or if `AuxiliaryLoss.rows` uses only a part of it.
    """

    tokens: tf.Tensor
    starts: tf.Tensor
    labels: tf.Tensor
    padded: bool
    share: Share | None = None

    @property
    def steps(self) -> tf.Tensor:
        """T, a scalar int32."""
        return tf.shape(self.tokens)[0]

    @property
    def all_starts(self) -> tf.Tensor:
        """[G] int32, the `starts` of the whole batch, whose rows several replicas may share."""
        if self.share is None:
            return self.starts
        lengths = self.share.lengths
        return self.steps - lengths if self.padded else tf.zeros_like(lengths)

    def at(self, rows: tf.Tensor) -> Sequences:
        """Selects some of these sequences; `share` of the result says that they are a part.

        Args:
            rows: [R] int32, the rows to select.

        Returns:
            R sequences.
        """
        share = self.share or Share(0, 1, self.steps - self.starts)
        return Sequences(
            tf.gather(self.tokens, rows, axis=1),
            tf.gather(self.starts, rows),
            tf.gather(self.labels, rows),
            self.padded,
            share._replace(chosen=rows),
        )

    def active(self, begin: tf.Tensor | int = 0) -> Active | None:
        """The steps that are not padding, counted from `begin`, for `core.run`; None: all."""
        return active_from(self.starts - begin) if self.padded else None

    def uniform(self, seed: tf.Tensor, shape: list[int]) -> tf.Tensor:
        """Draws random numbers for every sequence, which do not depend on the replica that has it.

        Args:
            seed: [2] int32.
            shape: The shape of the numbers of one sequence.

        Returns:
            [*shape, B] float32, uniform in [0, 1).
        """
        if self.share is None:
            return tf.random.stateless_uniform([*shape, tf.shape(self.starts)[0]], seed)
        draws = tf.random.stateless_uniform([*shape, self.share.size], seed)
        return self.share.rows(draws)


class StatesAt(NamedTuple):
    """Declares that the loss needs the main network's states at these positions.

    Attributes:
        positions: [n] int32 in 0..T, the same for all sequences. The state of a sequence that
            begins later is zero.
        count: Scalar float32, the number of terms that the loss has in the whole batch
            (`all_starts`). The loss is the mean of these terms.
    """

    positions: tf.Tensor
    count: tf.Tensor


class OutputsFrom(NamedTuple):
    """Declares that the loss needs the main network's outputs over a range from each position on.

    The gradient stops just before the positions, unless both losses use full backpropagation
    through time.

    Attributes:
        positions: [n] int32 in 0..T - 1.
        length: The number of steps of each range; if the batch is shorter, T - 1.
        count: See `StatesAt`.
    """

    positions: tf.Tensor
    length: int
    count: tf.Tensor


class OutputsOfAll(NamedTuple):
    """Declares that the loss needs the main network's outputs over whole sequences.

    If a sequence is read once, the output after each token predicts the next one. If it is read
    twice in succession, the first reading predicts nothing and the second predicts every token; the
    output after the last token of the first reading predicts the first token.

    Attributes:
        count: See `StatesAt`.
        twice: Whether the sequences are read twice.
    """

    count: tf.Tensor
    twice: bool = False


Declaration = StatesAt | OutputsFrom | OutputsOfAll


class States(NamedTuple):
    """What `call` receives if `declare` returned `StatesAt`.

    There are N = n * B rows, those of position 0 first. B is the number of sequences that the loss
    is computed on, see `AuxiliaryLoss.rows`.

    Attributes:
        states: The states, [N, ...] each; see `t2aux.model.core.State`.
        positions: [n] int32, as declared.
        sequences: The B sequences.
        input_layer: The main network's input layer, from tokens [..., C] or [...] to [..., D].
        seed: [2] int32, specific to this batch and this loss; the only source of randomness.
        progress: Scalar float32 in [0, 1], the completed fraction of the phase.
        bptt: After how many steps the loss's own recurrence stops its gradient; None: never.
    """

    states: State
    positions: tf.Tensor
    sequences: Sequences
    input_layer: InputLayer
    seed: tf.Tensor
    progress: tf.Tensor
    bptt: int | None


class Outputs(NamedTuple):
    """What `call` receives if `declare` returned `OutputsFrom` or `OutputsOfAll`.

    `call` is called once for each window of W steps, in order. N is n * B for `OutputsFrom`, the
    rows of position 0 first, and B for `OutputsOfAll`. B is the number of sequences that the loss
    is computed on, see `AuxiliaryLoss.rows`.

    Attributes:
        outputs: [W, N, H], the main network's outputs after each step of the window.
        tokens: [W, N, ...], the tokens that are read in these steps.
        targets: [W, N, ...], the token after each of them.
        mask: [W, N] float32, 1 where the output has to predict its target, else 0.
        active: The steps that are not padding, for the loss's own recurrence, see `core.run`; None:
            all.
        carry: What `call` returned for the previous window, without gradient; in the first window,
            the result of `AuxiliaryLoss.initial_carry`.
        seed: See `States`.
        progress: See `States`.
    """

    outputs: tf.Tensor
    tokens: tf.Tensor
    targets: tf.Tensor
    mask: tf.Tensor
    active: Active | None
    carry: Any
    seed: tf.Tensor
    progress: tf.Tensor


class Network(NamedTuple):
    """The properties of the main network and the data that a loss is built for.

    Attributes:
        hidden_size: H, the size of the main network's output.
        input_size: D, the size of its input layer's output.
        token_size: C, the number of channels, or V, the number of ids.
        is_text: Whether tokens are ids.
        longest: The length of the longest sequence in steps; None if unknown.
        data: The name of the data in messages.
        seed: The seed of the initial weights.
    """

    hidden_size: int
    input_size: int
    token_size: int
    is_text: bool
    longest: int | None
    data: str
    seed: int


class AuxiliaryLoss(Configurable, keras.layers.Layer):
    """The base class of auxiliary losses, in L = L_supervised + sum of w * L_auxiliary.

    The equation is that of the paper, section 3. A subclass creates its weights in `build`, and
    implements `declare` and `call`. It is used as `SequenceClassifier(auxiliary=[...])` in Python
    and as `train.auxiliary_losses = [@MyLoss]` in gin.

    Attributes:
        weight: w; if it is 0, the loss is measured but not trained.
        bptt: How many steps its gradient goes back; None: the trainer's `auxiliary_bptt`.
        rows: The fraction of every batch's rows that the loss is computed on.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        weight: float = 1.0,
        bptt: Bptt | None = None,
        rows: float = 1.0,
    ) -> None:
        """Stores the parameters.

        Args:
            name: The name in metrics ("NAME_loss") and checkpoints; by default that of the class.
            weight: w, 0 or more.
            bptt: How many steps the gradient goes back, "full" for all; None: the trainer's
                `auxiliary_bptt`.
            rows: The fraction of every batch's rows that the loss is computed on, above 0 and at
                most 1 [us]. Below 1, each step draws ceil(rows * batch size) rows without
                replacement, with its seed. The loss is the sum of their terms, divided by the
                fraction of rows drawn and by the number of terms in the whole batch, without
                padding. This is an unbiased estimate of the mean over the whole batch, and so is
                its gradient before clipping. The cost falls by the same fraction, except for the
                pass over the main network, which all losses share. The terms of the loss must not
                depend on other rows.

        Raises:
            UserError: `weight` is negative, or `rows` out of range.
        """
        kind = type(self).__name__
        # Not Keras's default name, which depends on what was created before in the process.
        super().__init__(name=name or _snake_case(kind), dtype="float32")
        if weight < 0:
            raise SettingError(f"{kind}.weight must not be negative, but is {weight}.")
        if not (isinstance(rows, numbers.Real) and 0 < rows <= 1):
            raise SettingError(
                f"{kind}.rows must be a number above 0 and at most 1, the share of the batch's "
                f"rows, but is {rows!r}."
            )
        self.weight = weight
        self.bptt = bptt
        self.rows = float(rows)

    def build(self, network: Network) -> None:
        """Creates the weights for a network."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = {"name": self.name, "weight": self.weight, "bptt": self.bptt}
        # Subclasses whose constructors do not take `rows` can be made from this.
        return config if self.rows == 1 else {**config, "rows": self.rows}

    def get_build_config(self) -> None:
        """Returns None, because the classifier that has the loss builds it."""

    @property
    def shortest_sequence(self) -> int:
        """The minimum number of steps of a sequence that this loss can be computed on."""
        return 1

    def check_bptt(self, parameter: str, bptt: Bptt) -> None:
        """Raises UserError if the loss has nothing to train with this truncation.

        Args:
            parameter: The parameter that sets the value.
            bptt: The value.
        """

    def declare(self, sequences: Sequences, seed: tf.Tensor) -> Declaration:
        """Declares what the loss needs of the main network for a batch.

        Args:
            sequences: The batch. The declaration may depend only on `all_starts` and `steps`, so
                that all replicas declare the same.
            seed: [2] int32, specific to this batch and this loss.

        Returns:
            `StatesAt`, `OutputsFrom` or `OutputsOfAll`.
        """
        raise NotImplementedError

    def initial_carry(self, states: State) -> Any:
        """The value of `Outputs.carry` in the first window: any nest of tensors [N, ...].

        Args:
            states: The main network's states before the window, [N, ...] each.
        """
        del states
        return ()

    def call(self, given: Any) -> tf.Tensor | tuple[tf.Tensor, Any]:
        """Computes the loss from what was declared.

        Args:
            given: `States` or `Outputs`.

        Returns:
            The sum of the loss's terms, a scalar. A loss with an `initial_carry` returns a pair:
            the sum and the carry for the next window.
        """
        raise NotImplementedError


def as_list(auxiliary: AuxiliaryLoss | Sequence[AuxiliaryLoss]) -> list[AuxiliaryLoss]:
    """Returns the given losses, or single loss, as a list. Raises UserError for anything else."""
    losses = list(auxiliary) if isinstance(auxiliary, (list, tuple)) else [auxiliary]
    for loss in losses:
        if not isinstance(loss, AuxiliaryLoss):
            raise SettingError(
                f"auxiliary holds {loss!r}: give a list of auxiliary losses, such as "
                "[t2aux.losses.Reconstruction()]."
            )
    return losses


def stream(seed: tf.Tensor, index: tf.Tensor | int) -> tf.Tensor:
    """The `index`-th of the independent seeds [2] derived from a seed [2]."""
    return tf.random.experimental.stateless_fold_in(seed, index)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
