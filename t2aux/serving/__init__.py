"""An embedded server that speaks TensorFlow Serving's protocol over gRPC and REST.

It needs the extra `serving`. For development, tests and small deployments; export/deploy/ has the
configuration of TensorFlow Serving itself, which has the same interface for clients.
"""
