"""Where each scan has each label, so that training finds structures without reading whole segmentations."""

from collections.abc import Mapping, Sequence

import numpy as np

from longflow.data.labels import Labels, structures
from longflow.nnunet import sample_positions

#: scan -> label value -> (n, 3) positions along z, y, x in prepared voxels
ClassLocations = Mapping[int, dict[int, np.ndarray]]


def wanted_values(labels: Labels) -> list[int]:
    """Label values whose places are of use: those of structures; with an ignore label also the background.

    Patches are then drawn from what is annotated, which the background is and the ignore label is not.

    >>> wanted_values({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3})
    [0, 1, 2]
    """
    values = {value for region in structures(labels).values() for value in region}
    return sorted(values | ({0} if "ignore" in labels else set()))


def find_locations(segmentations: Sequence[np.ndarray | None], values: Sequence[int]) -> ClassLocations:
    """Places of label values in the scans that have a label.

    As many as nnU-Net keeps (10,000, or a hundredth where that is more), drawn by its code from its seed.

    :param segmentations: (z, y, x) of each scan, prepared; None where it has no label.
    :return: int32 positions; a value that a scan does not have is left out.
    """
    return {
        scan: sample_positions(segmentation, values)
        for scan, segmentation in enumerate(segmentations)
        if segmentation is not None
    }
