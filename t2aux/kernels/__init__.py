"""The fused LSTM for the CPU: C++ that is compiled on first use, and TensorFlow ops around it."""
