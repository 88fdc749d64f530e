"""Training: truncation, the training step, and the loop with its phases and checkpoints."""
