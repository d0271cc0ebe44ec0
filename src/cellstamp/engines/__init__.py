"""Where batches run. Engines are handed callables and know nothing of images or files."""
