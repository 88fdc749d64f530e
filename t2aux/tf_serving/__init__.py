"""TensorFlow Serving's messages and files, for `t2aux.export`, `t2aux.serving`, `t2aux.client`."""

# Requests that it runs before a new version gets its first one, and how many it accepts.
WARM_UP = "assets.extra/tf_serving_warmup_requests"
MAX_WARM_UP_REQUESTS = 1000
# The sizes of batches that servers form, and that exports have requests for.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
# Its status codes as HTTP's; of several with the same, the client reads the first.
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
