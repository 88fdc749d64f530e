"""The export of a run as a SavedModel and TensorFlow Lite files, with measured accuracy.

    directory, measured = pipeline.export(run.load_run("runs/quick"), "exports/quick")
    directory, measured = t2aux.export_model(model, "exports/quick", test_data=(x, y))

The directory of a version contains `saved_model.pb`, `variables/` and, in `assets.extra/`, warm-up
requests for TF Serving; `classifier.tflite`, `classifier_stream.tflite`, `metadata.json`,
`parity.json` and `README.md`, the model card.
"""
