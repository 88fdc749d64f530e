"""The client of a server that speaks TF Serving's protocol: TF Serving itself, or `t2aux serve`.

Nothing here imports TensorFlow, so that a client starts quickly. grpcio and protobuf are installed
with TensorFlow.
"""
