"""Tiny raw datasets: two subjects of three scans, 8 x 8 x 6 voxels; and pairs of contrast phases."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SHAPE = (6, 8, 8)
PHASE_SHAPE = (4, 24, 20)


def tiny_array(seed: int = 0) -> np.ndarray:
    """int16, (z, y, x)."""
    return np.random.default_rng(seed).integers(0, 1000, SHAPE).astype(np.int16)


def write_image(array: np.ndarray, path: Path, spacing=(1.5, 1.5, 5.0), origin=(10.0, -20.0, 30.0), direction=None):
    """An image with an oblique geometry unless told otherwise."""
    image = sitk.GetImageFromArray(array, isVector=False)
    if image.GetDimension() == 3:
        cosine, sine = np.cos(0.3), np.sin(0.3)
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction or (1, 0, 0, 0, cosine, -sine, 0, sine, cosine))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def tiny_label() -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[2:4, 2:5, 2:5] = 1
    return label


def write_dataset(raw: Path, subjects=("p1", "p2"), times=(0, 30, 75), **description) -> Path:
    """A dataset without a problem; keys of ``description`` go to dataset.json."""
    lines = ["case,subject,time"]
    for number, subject in enumerate(subjects):
        for index, time in enumerate(times):
            case = f"{subject}_{index}"
            lines.append(f"{case},{subject},{time}")
            write_image(tiny_array(10 * number + index), raw / "imagesTr" / f"{case}_0000.nii.gz")
            write_image(tiny_label(), raw / "labelsTr" / f"{case}.nii.gz")
    (raw / "scans.csv").write_text("\n".join(lines) + "\n")
    content = {
        "channel_names": {"0": "T1"},
        "file_ending": ".nii.gz",
        "time_unit": "days",
        "labels": {"background": 0, "lesion": 1},
        **description,
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    return raw


def phase_array(seed: int, contrast: bool, shape=PHASE_SHAPE) -> np.ndarray:
    """A body of 40 HU in air (int16, z, y, x) with a vessel, which alone is brighter with contrast: 300, else 50 HU.

    Anatomy and noise are those of the seed.
    """
    generator = np.random.default_rng(seed)
    _, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    array = np.where((y / 0.9) ** 2 + (x / 0.9) ** 2 < generator.uniform(0.7, 1), 40.0, -1000.0)
    array[phase_label(shape) > 0] = 300 if contrast else 50
    return np.rint(array + generator.normal(0, 5, shape)).astype(np.int16)


def phase_label(shape=PHASE_SHAPE) -> np.ndarray:
    """The vessel of :func:`phase_array`, along z."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape[1:]), indexing="ij")
    return np.broadcast_to(y**2 + (x - 0.2) ** 2 < 0.1, shape).astype(np.uint8)


def write_phase_dataset(
    raw: Path,
    subjects=("p1", "p2"),
    times=(0,),
    phases=("native", "arterial"),
    shapes=(PHASE_SHAPE,),
    spacing=(1.5, 1.5, 5.0),
    channel="CT",
    labelled=True,
    **description,
) -> Path:
    """Pairs of two phases, task translate, cases ``{subject}_{time}_{phase}``; all phases but the first have contrast.

    :param shapes: of the subjects, in turn. :param description: keys of dataset.json, as in :func:`write_dataset`.
    """
    lines = ["case,subject,time,phase"]
    for number, subject in enumerate(subjects):
        shape = shapes[number % len(shapes)]
        for index, time in enumerate(times):
            for phase in phases:
                case = f"{subject}_{time}_{phase}"
                lines.append(f"{case},{subject},{time},{phase}")
                array = phase_array(10 * number + index, phase != phases[0], shape)
                write_image(array, raw / "imagesTr" / f"{case}_0000.nii.gz", spacing)
                if labelled:
                    write_image(phase_label(shape), raw / "labelsTr" / f"{case}.nii.gz", spacing)
    (raw / "scans.csv").write_text("\n".join(lines) + "\n")
    content = {
        "channel_names": {"0": channel},
        "file_ending": ".nii.gz",
        "time_unit": "days",
        "task": "translate",
        "labels": {"background": 0, "vessel": 1} if labelled else {},
        **description,
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    return raw


def edit_table(raw: Path, old: str, new: str) -> None:
    """Replace text in scans.csv."""
    text = (raw / "scans.csv").read_text()
    assert old in text
    (raw / "scans.csv").write_text(text.replace(old, new))


def edit_description(raw: Path, **changes) -> None:
    """Set keys of dataset.json."""
    path = raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
