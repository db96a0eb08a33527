"""Deformable registration of scans that are already in their linear mid-space.

All scans are deformed to their common mean image, which becomes sharper from round to round (Joshi et al., NeuroImage
23, 2004): by ANTs' SyN where antspyx is installed (Avants et al., Medical Image Analysis 12, 2008), else by
diffeomorphic demons (Vercauteren et al., NeuroImage 45, 2009, in SimpleITK). After each round the mean displacement is
subtracted from all of them (Guimond et al., Computer Vision and Image Understanding 77, 2000), so that the template is
biased to no scan.

A deformation is a displacement field u on the mid-space grid, mm (x, y, z): the anatomy at the point x of the mid-space
is at x + u(x) of the scan.
"""

import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from longflow.data.body import bright_image
from longflow.registration.linear import block_of

#: voxels along the longest axis, of each level; the displacement is smooth, so no finer level is needed
DEMONS_LEVELS = (64, 128)
DEMONS_ROUNDS = 3
DEMONS_ITERATIONS = 15
#: smoothing of the displacement, voxels of the level; it keeps the displacement from following noise
DEMONS_SMOOTHING = 1.5
SYN_ROUNDS = 2
#: at a quarter, a half and the full resolution; the last would take ten times as long as both others
SYN_ITERATIONS = (40, 20, 0)
#: percentiles of the intensities in the body that count as darkest and brightest
PERCENTILES = (2, 98)

Estimate = Callable[[sitk.Image, sitk.Image, sitk.Image], sitk.Image]


def has_ants() -> bool:
    """Tell whether antspyx is installed."""
    return importlib.util.find_spec("ants") is not None


def deformations(scans: Sequence[sitk.Image], backend: str) -> list[sitk.Image]:
    """Estimate unbiased displacement fields from the common template of the scans.

    :param scans: on one grid.
    :param backend: "syn" or "demons".
    :returns: a displacement field for each scan on that grid, float64 vectors in mm (x, y, z).
    """
    scans = [normalised(scan) for scan in scans]
    if backend == "syn":
        return _groupwise(scans, _by_syn, SYN_ROUNDS, None)
    fields = None
    for voxels in DEMONS_LEVELS:
        block = block_of(scans[0], voxels)
        shrunk = [sitk.BinShrink(scan, block) for scan in scans]
        fields = _groupwise(shrunk, _by_demons, DEMONS_ROUNDS, fields)
    return [on_grid(field, scans[0]) for field in fields]


def normalised(image: sitk.Image) -> sitk.Image:
    """Scale intensities to 0 to 1 between two percentiles of the body, which makes visits comparable."""
    image = sitk.Cast(image, sitk.sitkFloat32)
    array = sitk.GetArrayViewFromImage(image)
    inside = array[sitk.GetArrayFromImage(bright_image(image)) > 0]
    lowest, highest = float(array.min()), float(np.percentile(inside if inside.size else array, PERCENTILES[1]))
    lowest = max(lowest, float(np.percentile(array, PERCENTILES[0])))
    return sitk.Clamp((image - lowest) / max(highest - lowest, 1e-6), sitk.sitkFloat32, 0.0, 1.2)


def _groupwise(
    scans: Sequence[sitk.Image], estimate: Estimate, rounds: int, fields: Sequence[sitk.Image] | None
) -> list[sitk.Image]:
    fields = [on_grid(field, scans[0]) for field in fields] if fields else [zero_field(scans[0]) for _ in scans]
    for _ in range(rounds):
        template = _mean([warped(scan, field) for scan, field in zip(scans, fields, strict=True)])
        fields = centred([estimate(template, scan, field) for scan, field in zip(scans, fields, strict=True)])
    return fields


def zero_field(grid: sitk.Image) -> sitk.Image:
    """Make a field of no displacement on the grid of an image."""
    field = sitk.Image(grid.GetSize(), sitk.sitkVectorFloat64, 3)
    field.CopyInformation(grid)
    return field


def on_grid(field: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Resample a displacement field to another grid; outside its own grid, it takes the value at the border."""
    linear = sitk.sitkLinear
    return sitk.Resample(
        field, grid, sitk.Transform(), linear, 0.0, field.GetPixelID(), useNearestNeighborExtrapolator=True
    )


def transform_of_field(field: sitk.Image) -> sitk.DisplacementFieldTransform:
    """Return a displacement field as a transform; the field itself is copied."""
    return sitk.DisplacementFieldTransform(sitk.Image(field))


def warped(scan: sitk.Image, field: sitk.Image) -> sitk.Image:
    """Resample a scan to its own grid through a displacement field."""
    lowest = float(sitk.GetArrayViewFromImage(scan).min())
    return sitk.Resample(scan, scan, transform_of_field(field), sitk.sitkLinear, lowest, sitk.sitkFloat32)


def centred(fields: Sequence[sitk.Image]) -> list[sitk.Image]:
    """Express the deformations relative to the central template: their mean displacement becomes zero.

    With the mean m of the fields, the point y of the new template is at x = (id + m)^-1 (y) of the old one, and the new
    displacements x + u_i(x) - y average to (id + m)(x) - y = 0.

    :param fields: one for each scan, on one grid, mm.
    :returns: the fields relative to the new template.
    """
    mean = _mean(fields)
    back = sitk.InvertDisplacementField(
        mean,
        maximumNumberOfIterations=50,
        maxErrorToleranceThreshold=0.01,
        meanErrorToleranceThreshold=1e-4,
        enforceBoundaryCondition=False,
    )
    of_new = transform_of_field(sitk.Cast(back, sitk.sitkVectorFloat64))
    return [
        sitk.TransformToDisplacementField(
            sitk.CompositeTransform([transform_of_field(field), of_new]),
            sitk.sitkVectorFloat64,
            field.GetSize(),
            field.GetOrigin(),
            field.GetSpacing(),
            field.GetDirection(),
        )
        for field in fields
    ]


def _mean(images: Sequence[sitk.Image]) -> sitk.Image:
    """Average images on one grid, with one value or one vector per voxel."""
    arrays = [sitk.GetArrayViewFromImage(image) for image in images]
    result = sitk.GetImageFromArray(np.mean(arrays, axis=0), isVector=arrays[0].ndim == 4)
    result.CopyInformation(images[0])
    return result


def by_demons(
    fixed: sitk.Image, moving: sitk.Image, field: sitk.Image, iterations: int, smoothing: float
) -> sitk.Image:
    """Estimate the displacement from one image to another by diffeomorphic demons.

    :param fixed: the image whose grid the displacement is on.
    :param moving: the image that it leads to.
    :param field: the displacement to start with, mm.
    :param iterations: at most.
    :param smoothing: of the displacement, voxels.
    :returns: float64 vectors in mm (x, y, z).
    """
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(iterations)
    demons.SetSmoothDisplacementField(True)
    demons.SetStandardDeviations(smoothing)
    return sitk.Cast(demons.Execute(fixed, moving, field), sitk.sitkVectorFloat64)


def _by_demons(template: sitk.Image, scan: sitk.Image, field: sitk.Image) -> sitk.Image:
    return by_demons(template, scan, field, DEMONS_ITERATIONS, DEMONS_SMOOTHING)


def _by_syn(template: sitk.Image, scan: sitk.Image, _field: sitk.Image) -> sitk.Image:
    """Estimate a field from scratch: SyN cannot continue from the displacement of an earlier round."""
    return by_syn(template, scan)


def by_syn(fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image | None = None, total_sigma: float = 0) -> sitk.Image:
    """Estimate the displacement from one image to another by ANTs' SyN without an affine stage.

    :param fixed: the image whose grid the displacement is on.
    :param moving: the image that it leads to.
    :param mask: voxels in which the images are compared; None: all.
    :param total_sigma: smoothing of the displacement, voxels of the level.
    :returns: float64 vectors in mm (x, y, z).
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"  # one process per core is at work already
    import ants

    with tempfile.TemporaryDirectory() as folder:
        answer = ants.registration(
            fixed=_as_ants(ants, fixed),
            moving=_as_ants(ants, moving),
            type_of_transform="SyNOnly",
            initial_transform="Identity",
            reg_iterations=SYN_ITERATIONS,
            mask=None if mask is None else _as_ants(ants, mask),
            total_sigma=total_sigma,
            outprefix=str(Path(folder) / "syn"),
        )
        warp = next(path for path in answer["fwdtransforms"] if path.endswith("Warp.nii.gz"))
        return on_grid(sitk.ReadImage(warp, sitk.sitkVectorFloat64), fixed)


def _as_ants(ants, image: sitk.Image):
    direction = np.reshape(image.GetDirection(), (3, 3))
    array = np.ascontiguousarray(sitk.GetArrayViewFromImage(image).T, dtype=np.float32)
    return ants.from_numpy(array, image.GetOrigin(), image.GetSpacing(), direction)
