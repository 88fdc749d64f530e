"""The networks: the LSTM, its input layer and head, and the auxiliary networks."""
