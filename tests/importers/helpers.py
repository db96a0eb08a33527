"""Import a folder as ``longflow_import`` does, with defaults for tests."""

from longflow.importers.registry import IMPORTERS
from longflow.importers.scans import Destination, HeldOut


def run_import(layout, source, raw, *, task=None, test=(), test_targets=1, overwrite=False, **options):
    importer = IMPORTERS.get(layout)
    to = Destination(raw, importer.checked_task(task), overwrite, processes=1)
    return importer.run(source, to, HeldOut(test, test_targets), **options)
