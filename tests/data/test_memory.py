import pytest

from longflow.data.memory import check_memory
from longflow.errors import DataError
from longflow.parallel import free_memory


def test_a_volume_that_memory_cannot_hold_names_file_found_and_expected():
    check_memory(free_memory() // 2, "a.nii.gz", "8 x 8 x 8 voxels")
    found = r"a\.nii\.gz has the size 9 x 9 x 9 voxels, which need 1e\+06 GB of memory, expected at most [\d.e+]+ GB"
    with pytest.raises(DataError, match=found):
        check_memory(10**15, "a.nii.gz", "9 x 9 x 9 voxels")
