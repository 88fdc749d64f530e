"""Recurrent layers with Keras's interfaces, for models of your own."""

from t2aux.layers.lstm import LSTM

__all__ = ["LSTM"]
