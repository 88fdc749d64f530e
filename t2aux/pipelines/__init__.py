"""Long work on many machines, as Apache Beam pipelines: `t2aux predict|data convert --runner=`.

`runners` starts a pipeline and reports its errors as everywhere else, `storage` reads and writes
on any of Beam's file systems. `inputs` divides what is classified into parts that are read on their
own, `predict` and `convert` are the two pipelines. Beam is the extra `beam`; only this package
imports it.
"""
