"""What a trained classifier does: where it is found, and its results as tables and pictures."""
