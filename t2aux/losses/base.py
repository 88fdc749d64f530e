"""What an auxiliary loss is: it declares what it needs of the main network, and computes from that.

For each batch `AuxiliaryLoss.declare` returns one of three declarations, and `AuxiliaryLoss.call`
gets what was declared, differentiable:

| declaration | what it asks for | what `call` gets |
|---|---|---|
| `StatesAt` | the states at some positions | `States` |
| `OutputsFrom` | the outputs over a range of steps from some positions on | `Outputs` |
| `OutputsOfAll` | the outputs over whole sequences | `Outputs` |

How the gradient is truncated, what is computed twice and what is stored is the trainer's affair
(`t2aux.training.windows`): a loss works with every core, truncation and padding, and where several
replicas share a batch.

Everything is time-major, [T, B, ...], with the sequences aligned at their ends: sequence b begins
at step starts[b] and ends at T. Position p means the state before token p is read.
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
    """What a classifier is trained for, and how far gradients go back.

    Attributes:
        auxiliary: The auxiliary losses, beside the supervised one.
        supervised_bptt: Steps that the supervised gradient goes back; "full", or 0 for none.
        auxiliary_bptt: The same for each auxiliary loss that does not say so itself.
        precision: Of the products of LSTMs, see `t2aux.kernels.ops`.
    """

    auxiliary: Sequence[AuxiliaryLoss] = ()
    supervised_bptt: Bptt = 300
    auxiliary_bptt: Bptt = 300
    precision: ops.Precision = "float32"


class Sequences(NamedTuple):
    """A batch, time-major, its sequences aligned at their ends.

    Attributes:
        tokens: [T, B, C] float32, or ids [T, B] int32.
        starts: [B] int32: the step at which each sequence begins.
        labels: [B] int32.
        padded: Whether sequences may begin after step 0.
        share: Which rows of a larger batch these are; None: all. A larger batch is one that
            replicas share, or one of which `AuxiliaryLoss.rows` takes a part.
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
        """[G] int32: as `starts`, of the whole batch, whose rows several replicas may share."""
        if self.share is None:
            return self.starts
        lengths = self.share.lengths
        return self.steps - lengths if self.padded else tf.zeros_like(lengths)

    def at(self, rows: tf.Tensor) -> Sequences:
        """Some of these sequences, of which the rest knows that they are a part of the batch.

        Args:
            rows: [R] int32.

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
        """Where sequences are, counted from step `begin` on, for `core.run`; None: everywhere."""
        return active_from(self.starts - begin) if self.padded else None

    def uniform(self, seed: tf.Tensor, shape: list[int]) -> tf.Tensor:
        """Random numbers for every sequence, the same whichever replica has it.

        Args:
            seed: [2] int32.
            shape: How many numbers a sequence gets.

        Returns:
            [*shape, B] float32, uniform in [0, 1).
        """
        if self.share is None:
            return tf.random.stateless_uniform([*shape, tf.shape(self.starts)[0]], seed)
        draws = tf.random.stateless_uniform([*shape, self.share.size], seed)
        return self.share.rows(draws)


class StatesAt(NamedTuple):
    """Declares: the main network's states at these positions.

    Attributes:
        positions: [n] int32 in 0..T, the same for all sequences. Where a sequence begins later, its
            state is zero.
        count: Scalar float32: how many terms the loss has in the whole batch (`all_starts`), of
            which it is the mean.
    """

    positions: tf.Tensor
    count: tf.Tensor


class OutputsFrom(NamedTuple):
    """Declares: the main network's outputs over a range of steps from each position on.

    The gradient stops just before the positions, unless both losses have full backpropagation
    through time.

    Attributes:
        positions: [n] int32 in 0..T - 1.
        length: How many steps each range has; where the batch is shorter, T - 1.
        count: See `StatesAt`.
    """

    positions: tf.Tensor
    length: int
    count: tf.Tensor


class OutputsOfAll(NamedTuple):
    """Declares: the main network's outputs over whole sequences.

    Read once, each token predicts the one after it. Read twice, the second time right after the
    first, nothing is predicted the first time, and then every token, the last of the first time
    predicting the first.

    Attributes:
        count: See `StatesAt`.
        twice: Whether the sequences are read twice.
    """

    count: tf.Tensor
    twice: bool = False


Declaration = StatesAt | OutputsFrom | OutputsOfAll


class States(NamedTuple):
    """What a loss gets that declared `StatesAt`. N = n * B rows, all of position 0 first.

    B is how many sequences the loss is computed on: see `AuxiliaryLoss.rows`.

    Attributes:
        states: The states, [N, ...] each; see `t2aux.model.core.State`.
        positions: [n] int32, as declared.
        sequences: These sequences.
        input_layer: The main network's, from tokens [..., C] or [...] to its input [..., D].
        seed: [2] int32, this batch's and this loss's: what is random is a function of it.
        progress: Scalar float32 in [0, 1]: how far the phase has got.
        bptt: After how many steps a recurrence of the loss's own stops its gradient; None: never.
    """

    states: State
    positions: tf.Tensor
    sequences: Sequences
    input_layer: InputLayer
    seed: tf.Tensor
    progress: tf.Tensor
    bptt: int | None


class Outputs(NamedTuple):
    """What a loss gets that declared outputs: one window of them after the other.

    N is n * B for `OutputsFrom`, all of position 0 first, and B for `OutputsOfAll`. B is how many
    sequences the loss is computed on: see `AuxiliaryLoss.rows`.

    Attributes:
        outputs: [W, N, H]: the main network's after each step of the window.
        tokens: [W, N, ...]: the tokens that were read in these steps.
        targets: [W, N, ...]: the tokens after them.
        mask: [W, N] float32: 1 where the output is to predict its target, else 0.
        active: For a recurrence of the loss's own over these steps, see `core.run`; None: there is
            no padding.
        carry: What `call` returned for the window before, without gradient; for the first, what
            `AuxiliaryLoss.initial_carry` returned.
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
    """What a loss is built for.

    Attributes:
        hidden_size: H, the size of the main network's output.
        input_size: D, the size of what its input layer gives.
        token_size: C channels, or V ids.
        is_text: Whether tokens are ids.
        longest: The most steps that a sequence has; None: not known.
        data: What the data is called in messages.
        seed: Of initial weights.
    """

    hidden_size: int
    input_size: int
    token_size: int
    is_text: bool
    longest: int | None
    data: str
    seed: int


class AuxiliaryLoss(Configurable, keras.layers.Layer):
    """An auxiliary loss of L = L_supervised + sum of w * L_auxiliary (paper, section 3).

    A subclass makes its weights in `build`, and implements `declare` and `call`. In Python it is
    one of `SequenceClassifier(auxiliary=[...])`, in gin of `train.auxiliary_losses = [@MyLoss]`.

    Attributes:
        weight: w; at 0 the loss is measured only.
        bptt: How many steps its gradient reaches back; None: the trainer's `auxiliary_bptt`.
        rows: The share of every batch's rows that it is computed on.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        weight: float = 1.0,
        bptt: Bptt | None = None,
        rows: float = 1.0,
    ) -> None:
        """Keeps the parameters.

        Args:
            name: In metrics ("NAME_loss") and checkpoints; by default the class's.
            weight: w, 0 or more.
            bptt: How many steps the gradient reaches back, "full" for all; None: the trainer's
                `auxiliary_bptt`.
            rows: The share of every batch's rows that the loss is computed on, above 0 and at most
                1 [us]. Below 1 each step draws ceil(rows * batch size) of them, without
                replacement, from its seed. The loss is then the sum over their terms, divided by
                the share that they are of the batch and by the number of terms in the whole batch,
                without padding: an unbiased estimate of the mean over the whole batch. So is its
                gradient, before it is clipped. The cost falls by this share, but for the pass over
                the main network that all losses share. It works for every loss whose terms do not
                depend on other rows.

        Raises:
            UserError: `weight` is negative, or `rows` out of range.
        """
        kind = type(self).__name__
        # Not Keras's default, which depends on what was made before in the process.
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
        """Makes the weights for a network."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = {"name": self.name, "weight": self.weight, "bptt": self.bptt}
        # A subclass whose constructor does not take it can be made of this.
        return config if self.rows == 1 else {**config, "rows": self.rows}

    def get_build_config(self) -> None:
        """None: the classifier that has the loss builds it."""

    @property
    def shortest_sequence(self) -> int:
        """The fewest steps that a sequence must have for this loss to be taken on it."""
        return 1

    def check_bptt(self, parameter: str, bptt: Bptt) -> None:
        """Raises UserError if the loss has nothing to train where its gradient reaches so far.

        Args:
            parameter: Where the value comes from.
            bptt: The value.
        """

    def declare(self, sequences: Sequences, seed: tf.Tensor) -> Declaration:
        """Says what the loss needs of the main network for a batch.

        Args:
            sequences: The batch. What is declared may depend on `all_starts` and `steps` only, so
                that all replicas declare the same.
            seed: [2] int32, this batch's and this loss's.

        Returns:
            A declaration.
        """
        raise NotImplementedError

    def initial_carry(self, states: State) -> Any:
        """What `Outputs.carry` is in the first window: any nest of tensors [N, ...].

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
            The sum over its terms, a scalar. A loss that has an `initial_carry` returns a pair: the
            sum and the carry for the next window.
        """
        raise NotImplementedError


def as_list(auxiliary: AuxiliaryLoss | Sequence[AuxiliaryLoss]) -> list[AuxiliaryLoss]:
    """The losses, of a list or of one. Raises UserError where there is something else."""
    losses = list(auxiliary) if isinstance(auxiliary, (list, tuple)) else [auxiliary]
    for loss in losses:
        if not isinstance(loss, AuxiliaryLoss):
            raise SettingError(
                f"auxiliary holds {loss!r}: give a list of auxiliary losses, such as "
                "[t2aux.losses.Reconstruction()]."
            )
    return losses


def stream(seed: tf.Tensor, index: tf.Tensor | int) -> tf.Tensor:
    """The `index`-th independent seed [2] made from a seed [2]."""
    return tf.random.experimental.stateless_fold_in(seed, index)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
