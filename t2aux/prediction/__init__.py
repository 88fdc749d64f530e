"""Predictions for all rows of a file, a folder or a data set, with a classifier in any form.

`source` reads rows, `predictor` classifies them, `writing` writes predictions, and `pipeline`
connects the three. A `predictor.Predictor`, rows and predictions can be pickled, so that the same
code runs in many processes.
"""
