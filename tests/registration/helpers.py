"""A small body with a pattern like nothing else: bright blobs in an ellipsoid, 24 x 26 x 28 voxels of 2 mm."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SHAPE = (24, 26, 28)
SPACING = (2.0, 2.0, 2.0)
BLOBS = ((6, 9, 10, 2.5), (16, 8, 18, 3.0), (12, 17, 8, 2.0), (9, 16, 20, 2.5), (17, 18, 15, 2.0))


def blobs(matrix: np.ndarray | None = None, noise: float = 0.0, seed: int = 0) -> sitk.Image:
    """The body after it has moved: what lay at x lies at ``matrix`` x (4 x 4, mm); float32."""
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij"), axis=-1)[..., ::-1] * SPACING[0]
    if matrix is not None:
        back = np.linalg.inv(matrix)
        grid = grid @ back[:3, :3].T + back[:3, 3]
    z, y, x = (grid[..., axis] / SPACING[0] for axis in (2, 1, 0))
    centre = [(size - 1) / 2 for size in SHAPE]
    radius = ((z - centre[0]) / 9) ** 2 + ((y - centre[1]) / 10) ** 2 + ((x - centre[2]) / 11) ** 2
    array = 100 / (1 + np.exp(6 * (radius - 1)))
    for number, (bz, by, bx, width) in enumerate(BLOBS):
        array += (60 + 20 * number) * np.exp(-((z - bz) ** 2 + (y - by) ** 2 + (x - bx) ** 2) / (2 * width**2))
    array += np.random.default_rng(seed).normal(0, 1, SHAPE) * noise
    return as_image(array.astype(np.float32))


def as_image(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    return image


def moved(degrees: float = 0.0, shift=(0.0, 0.0, 0.0), axis=(0, 0, 1)) -> np.ndarray:
    """A rotation about the middle of the volume, then a shift in mm; 4 x 4."""
    centre = [(size - 1) / 2 * SPACING[0] for size in SHAPE[::-1]]
    transform = sitk.VersorRigid3DTransform()
    transform.SetCenter(centre)
    transform.SetRotation(axis, np.radians(degrees))
    transform.SetTranslation(shift)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = np.array(transform.TransformPoint((0, 0, 0)))
    return matrix


def corners() -> np.ndarray:
    """Points of the body, farthest from its middle, (6, 3), mm."""
    middle = (np.array(SHAPE[::-1]) - 1) / 2 * SPACING[0]
    return middle + np.concatenate([np.eye(3), -np.eye(3)]) * 20


def farthest(one: np.ndarray, other: np.ndarray) -> float:
    """How far two transforms take a point of the body apart at most, mm."""
    apart = (corners() @ one[:3, :3].T + one[:3, 3]) - (corners() @ other[:3, :3].T + other[:3, 3])
    return float(np.linalg.norm(apart, axis=1).max())


def label_of(image: sitk.Image) -> sitk.Image:
    """1 in the body, 2 in its brightest blobs."""
    array = sitk.GetArrayViewFromImage(image)
    label = sitk.GetImageFromArray((array > 60).astype(np.uint8) + (array > 150))
    label.CopyInformation(image)
    return label


def write_moved(raw: Path, subjects: dict[str, list[sitk.Image]], **description) -> Path:
    """A raw dataset of one channel; the first scan of each subject has a label."""
    lines = ["case,subject,time"]
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for subject, images in subjects.items():
        for index, image in enumerate(images):
            case = f"{subject}_{index}"
            lines.append(f"{case},{subject},{index * 30}")
            sitk.WriteImage(image, str(raw / "imagesTr" / f"{case}_0000.nii.gz"))
            if index == 0:
                sitk.WriteImage(label_of(image), str(raw / "labelsTr" / f"{case}.nii.gz"))
    (raw / "scans.csv").write_text("\n".join(lines) + "\n")
    content = {
        "channel_names": {"0": "T1"},
        "file_ending": ".nii.gz",
        "time_unit": "days",
        "task": "segment",
        "labels": {"background": 0, "body": 1, "blob": 2},
        **description,
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    return raw
