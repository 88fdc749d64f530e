"""TensorFlow Serving's messages and files, for `t2aux.export`, `t2aux.serving`, `t2aux.client`."""

# The requests that it runs before a new version gets its first one, and their maximum number.
WARM_UP = "assets.extra/tf_serving_warmup_requests"
MAX_WARM_UP_REQUESTS = 1000
# The batch sizes that servers form, and that exports have warm-up requests for.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
# The HTTP statuses of its codes. The client maps a status back to the first code that has it.
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
