"""An embedded server that speaks TensorFlow Serving's protocol over gRPC and REST.

It needs the extra `serving` and is meant for development, tests and small deployments. The folder
export/deploy/ has a configuration for TensorFlow Serving itself, which has the same interface for
clients.
"""
