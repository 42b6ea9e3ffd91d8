"""Renders synthetic speakers, trains the embedded model on them, and evaluates models."""

import os

# oneDNN compiles kernels per shape, and batches have many shapes: cache all. Read when torch is imported.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")
