"""Finding and loading trained classifiers, and their results as tables and pictures."""
