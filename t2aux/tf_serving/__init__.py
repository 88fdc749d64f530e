"""What TensorFlow Serving defines: its messages, and what it reads in an export.

`t2aux.export` writes by it, `t2aux.serving` and `t2aux.client` read by it.
"""

# Requests that it replays before it gives a new version its first one. It refuses more.
WARM_UP = "assets.extra/tf_serving_warmup_requests"
MOST_WARM_UP_REQUESTS = 1000
# The sizes of batches that our servers form, and that exports have requests for.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
