"""Methods: one file each, named as on the command line. :class:`Method` is what an outside package subclasses."""

from longflow.methods.method import Batch, Method, Recipe, ScanBatch

__all__ = ["Batch", "Method", "Recipe", "ScanBatch"]
