"""A package that adds the task ``count`` to longflow: how many voxels of a scan are labelled structure.

``tests/test_outside_task.py`` installs a copy of this folder. Its imports are relative, so that the folder is also a
package of the tests.
"""
