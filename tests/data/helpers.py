"""Tiny raw datasets: two subjects of three scans, 8 x 8 x 6 voxels."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SHAPE = (6, 8, 8)


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


def edit_table(raw: Path, old: str, new: str) -> None:
    """Replace text in scans.csv."""
    text = (raw / "scans.csv").read_text()
    assert old in text
    (raw / "scans.csv").write_text(text.replace(old, new))


def edit_description(raw: Path, **changes) -> None:
    """Set keys of dataset.json."""
    path = raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
