"""Recurrent layers with Keras's interfaces, for models of your own."""

from t2aux.layers.gru import GRU
from t2aux.layers.lstm import LSTM
from t2aux.layers.mingru import MinGRU

__all__ = ["GRU", "LSTM", "MinGRU"]
