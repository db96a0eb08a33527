"""Methods: one file each, named as on the command line. An outside package subclasses :class:`Method`."""

from longflow.methods.batches import Batch, PhaseBatch, ScanBatch
from longflow.methods.method import Method, Recipe

__all__ = ["Batch", "Method", "PhaseBatch", "Recipe", "ScanBatch"]
