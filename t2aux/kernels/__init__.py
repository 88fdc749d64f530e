"""The fused LSTM for the CPU: C++ code that is compiled on first use, and its TensorFlow ops."""
