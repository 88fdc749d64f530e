"""The export stage: from a run to a SavedModel, TensorFlow Lite files and what they are worth.

    directory, measured = pipeline.export(run.load_run("runs/quick"), "exports/quick")
    directory, measured = t2aux.export_model(model, "exports/quick", test_data=(x, y))

A version's directory holds everything: `saved_model.pb`, `variables/` and, in `assets.extra/`,
warm-up requests for TF Serving; `classifier.tflite`, `classifier_stream.tflite`, `metadata.json`,
`parity.json` and `README.md`, the model card.
"""
