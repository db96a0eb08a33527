"""Small plans and raw datasets for the tests of this room."""

import numpy as np

from longflow.data.images import Geometry, Volume, write_volume
from longflow.files import write_json
from longflow.paths import DatasetPaths
from longflow.plans import Plans, write_plans
from tests.methods.helpers import minimal_plans

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def make_plans(
    spacing=(1.0, 1.0, 1.0),
    transpose=(0, 1, 2),
    normal_form="per_subject",
    channels=("MR",),
    patch_size=(4, 8, 8),
    configurations=None,
) -> Plans:
    """Minimal plans with what preprocessing reads; ``configurations`` holds changes of each, by name."""
    form = {"offset": 40.0, "scale": 250.0} if normal_form == "absolute" else {}
    content = minimal_plans().model_dump()
    configuration = {**content["configurations"]["3d_fullres"], "spacing": spacing, "patch_size": patch_size}
    return Plans.model_validate(
        {
            **content,
            "dataset_name": "Dataset901_Test",
            "channel_names": list(channels),
            "transpose_forward": list(transpose),
            "transpose_backward": [int(axis) for axis in np.argsort(transpose)],
            "channels": [{"name": name, "normal_form": normal_form, **form} for name in channels],
            "configurations": {
                name: {**configuration, **changes} for name, changes in (configurations or {"3d_fullres": {}}).items()
            },
        }
    )


def segmentation_plans(
    labels: dict,
    spacing=(1.0, 1.0, 1.0),
    transpose=(0, 1, 2),
    normal_form="per_scan",
    channels=("MR",),
    regions_class_order=(),
) -> Plans:
    """Minimal plans of the task segment; what is absolute is clipped."""
    content = make_plans(spacing, transpose, normal_form, channels).model_dump()
    if normal_form == "absolute":
        content["channels"] = [{**channel, "clip": (-300.0, 900.0)} for channel in content["channels"]]
    further = {"task": "segment", "labels": labels, "regions_class_order": list(regions_class_order)}
    return Plans.model_validate({**content, **further})


def translation_plans(normal_form="absolute", spacing=(5.0, 3.0, 3.0)) -> Plans:
    """Minimal plans of the task translate: 2d keeps the files' grid, 3d_fullres is resampled; CT with MFM's numbers."""
    content = make_plans(spacing, normal_form=normal_form, channels=("CT",)).model_dump()
    if normal_form == "absolute":
        content["channels"] = [{**content["channels"][0], "offset": 0, "scale": 1000, "clip": (-1000, 1000)}]
    volume = content["configurations"]["3d_fullres"]
    network = {**volume["network"], "strides": [[1, 1], [2, 2]], "kernel_sizes": [[3, 3]] * 2}
    slices = {**volume, "data_identifier": "2d", "patch_size": [24, 20], "own_grid": True, "network": network}
    return Plans.model_validate(
        {
            **content,
            "task": "translate",
            "phases": ["native", "arterial"],
            "configurations": {"2d": slices, "3d_fullres": volume},
        }
    )


def make_volume(
    shape=(6, 20, 24),
    spacing=(4.0, 1.0, 1.0),
    seed=0,
    channels=1,
    border=0,
    direction=OBLIQUE,
    data_type="int16",
    low=-1000,
    high=2000,
) -> Volume:
    """A smooth random volume of whole numbers with a border of zeros; spacing in the array's order."""
    generator = np.random.default_rng(seed)
    array = np.zeros((channels, *shape), np.float32)
    inside = tuple(slice(border, size - border) for size in shape)
    for channel in array:
        noise = generator.normal(size=shape)
        for axis in range(3):
            noise = (noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)) / 3
        noise = (noise - noise.min()) / np.ptp(noise)
        channel[inside] = np.rint(low + (high - low) * noise)[inside]
        channel[inside][channel[inside] == 0] = 1  # a zero at the border would move the crop
    geometry = Geometry(tuple(reversed(shape)), tuple(reversed(spacing)), (-10.0, 5.0, 2.5), direction)
    return Volume(array, geometry, data_type)


def make_dataset(subjects=2, scans=2, shape=(6, 20, 24), plans: Plans | None = None) -> DatasetPaths:
    """A raw dataset with plans, below the roots that the environment names; first scans have labels."""
    paths = DatasetPaths("Dataset901_Test")
    description = {"channel_names": {"0": "MR"}, "file_ending": ".nii.gz", "time_unit": "days"}
    lines = ["case,subject,time"]
    for subject in range(subjects):
        for scan in range(scans):
            case = f"s{subject}_{scan}"
            volume = make_volume(shape, seed=10 * subject + scan, border=2)
            image = paths.raw / "imagesTr" / f"{case}_0000.nii.gz"
            write_volume(volume.array[0], volume.geometry, "int16", image)
            lines.append(f"{case},s{subject},{scan}")
            if scan == 0:
                label = paths.raw / "labelsTr" / f"{case}.nii.gz"
                write_volume(volume.array[0] > 500, volume.geometry, "uint8", label)
    write_json({**description, "labels": {"background": 0, "bright": 1}}, paths.raw / "dataset.json")
    (paths.raw / "scans.csv").write_text("\n".join(lines) + "\n")
    write_plans(plans or make_plans(spacing=(4.0, 1.0, 1.0)), paths.plans())
    return paths
