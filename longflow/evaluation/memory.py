"""How many worker processes fit into memory."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import psutil
import SimpleITK as sitk

from longflow.data.parallel import available_cores
from longflow.evaluation.pairs import Files

logger = logging.getLogger(__name__)

#: share of the free memory that workers may take
_SHARE = 0.8

#: bytes that a process takes before it has read anything, and for work on portions of a volume
_PROCESS = 400_000_000


def processes_that_fit(wanted: int | None, scans: Sequence[Files], volumes_at_peak: int) -> int:
    """As many processes as are wanted (None: one for each core) and as free memory holds; at least one.

    :param scans: the scans to be worked on; the largest counts.
    :param volumes_at_peak: volumes of float32 of that size which a process holds at its peak.
    """
    wanted = wanted or available_cores()
    needed = _PROCESS + volumes_at_peak * max(4 * len(files) * _voxels(files[0]) for files in scans)
    fitting = max(1, int(_SHARE * psutil.virtual_memory().available) // needed)
    if fitting < wanted:
        logger.info("%d instead of %d processes: each needs about %.1f GB.", fitting, wanted, needed / 1e9)
    return min(wanted, fitting)


def _voxels(path: Path) -> int:
    """Voxels of an image, by its header alone."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return 1  # whoever reads the voxels will say what is wrong with the file
    return math.prod(reader.GetSize())
