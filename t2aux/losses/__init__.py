"""Auxiliary losses: the base class, the paper's two losses, and those that it compares with."""

from t2aux.losses.base import (
    AuxiliaryLoss,
    Network,
    Outputs,
    OutputsFrom,
    OutputsOfAll,
    Sequences,
    States,
    StatesAt,
)
from t2aux.losses.prediction import Prediction
from t2aux.losses.reconstruction import Reconstruction
from t2aux.losses.whole_sequence import LanguageModel, SequenceAutoencoder

__all__ = [
    "AuxiliaryLoss",
    "LanguageModel",
    "Network",
    "Outputs",
    "OutputsFrom",
    "OutputsOfAll",
    "Prediction",
    "Reconstruction",
    "SequenceAutoencoder",
    "Sequences",
    "States",
    "StatesAt",
]
