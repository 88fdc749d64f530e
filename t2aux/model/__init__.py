"""The networks: the recurrent cores, their input layers and heads, and the Transformer."""
