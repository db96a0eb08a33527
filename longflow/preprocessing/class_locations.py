"""Find where each scan has each label, so that training finds structures without reading whole segmentations."""

from collections.abc import Mapping, Sequence

import numpy as np

from longflow.data.labels import Labels, structures
from longflow.nnunet import sample_positions

#: scan -> label value -> (n, 3) positions along z, y, x in prepared voxels
ClassLocations = Mapping[int, dict[int, np.ndarray]]


def values_to_locate(labels: Labels) -> list[int]:
    """List the label values to locate: those of structures, and the background where there is an ignore label.

    With an ignore label, patches are drawn from annotated voxels: the background is annotated, the ignore label is not.

    :param labels: of dataset.json.
    :returns: label values, sorted.

    >>> values_to_locate({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3})
    [0, 1, 2]
    """
    values = {value for region in structures(labels).values() for value in region}
    return sorted(values | ({0} if "ignore" in labels else set()))


def find_locations(segmentations: Mapping[int, np.ndarray], values: Sequence[int]) -> ClassLocations:
    """Draw positions of label values in the scans that have a label.

    They are as many as nnU-Net keeps (10,000, or a hundredth where that is more), drawn by its code from its seed.

    :param segmentations: (z, y, x) of each labelled scan, prepared, by position in the series.
    :param values: label values to locate.
    :returns: int32 positions; a value that a scan does not have is absent.
    """
    return {scan: sample_positions(segmentation, values) for scan, segmentation in segmentations.items()}
