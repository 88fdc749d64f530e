"""Apache Beam pipelines for many machines: `t2aux predict|data convert --runner=`.

`runners` starts a pipeline and reports its errors in the usual way; `storage` reads and writes on
any of Beam's file systems; `inputs` divides the data to classify into parts that are read
independently; `predict` and `convert` are the two pipelines. Beam is installed by the extra `beam`,
and only this package imports it.
"""
