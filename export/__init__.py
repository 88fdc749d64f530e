"""The export: from a run to a SavedModel and TensorFlow Lite files, with their accuracy.

    directory, measured = pipeline.export(run.load_run("runs/quick"), "exports/quick")
    directory, measured = t2aux.export_model(model, "exports/quick", test_data=(x, y))

A version's directory has everything: `saved_model.pb`, `variables/` and, in `assets.extra/`,
warm-up requests for TF Serving; `classifier.tflite`, `classifier_stream.tflite`, `metadata.json`,
`parity.json` and `README.md`, the model card.
"""
