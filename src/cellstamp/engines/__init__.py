"""Where batches run. Engines get callables and know nothing about images or files.

`base` has the interface and the serial engine, `processes` the worker processes, `dask` the dask cluster.
"""
