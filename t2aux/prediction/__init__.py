"""Predictions for all rows of a file, a folder or a data set, with a classifier in any form.

`source` reads rows, `predictor` classifies them, `writing` writes predictions, and `pipeline` joins
the three. A `predictor.Predictor` can be pickled, and so can rows and predictions, so that the same
code runs in many processes.
"""
