"""The paper's tables and figures: what was published, how each is run, and the report."""
