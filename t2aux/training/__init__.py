"""Training: which steps carry gradient, one step, and the loop with its phases and checkpoints."""
