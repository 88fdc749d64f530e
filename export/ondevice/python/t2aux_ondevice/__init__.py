"""t2aux_ondevice: runs a classifier exported by `t2aux export` with only numpy and LiteRT.

from t2aux_ondevice import litert
classifier = litert.LiteRTClassifier("classifier.tflite")  # metadata.json lies beside it.
classifier.probabilities(classifier.info.vector_sequence(array))  # float32 [K].
for steps, probabilities in classifier.stream(sequence, segment=28):
    ...  # As the sequence comes in, in constant memory.
"""

__version__ = "0.1.0"
