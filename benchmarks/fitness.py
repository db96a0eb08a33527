"""Measure how many wrong scans the fitness gate finds, and how many good ones it calls doubtful.

    python benchmarks/fitness.py [--data FOLDER] [--subjects 60] [--out FOLDER]

Cohorts: beating hearts (the phantom of longflow_demo), and, below ``--data``, ``acdc/training`` (the layout of the
challenge) and ``hippocampus`` (Task04 of the Medical Segmentation Decathlon: images, labels; T1). The gate learns from
some subjects of a cohort. Each of the others is judged as it is, and with each corruption. Printed is the share of
subjects that are doubtful or unfit, and in parentheses the unfit ones. A dash: the corruption does not exist for single
scans. Written is fitness.csv.
"""

import argparse
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from longflow.data.images import read_scan
from longflow.demo.cohort import scan_times
from longflow.demo.law import draw_subject
from longflow.demo.phantom import DEMO_SHAPE, phantom_scan, voxel_spacing
from longflow.files import write_csv
from longflow.fitness.looks import look_at_scan
from longflow.fitness.reference import learn_reference
from longflow.fitness.series import Observed, observe_scans, observe_series
from longflow.fitness.verdict import judge

SCANS = (6, 9)
COLUMNS = ("cohort", "trained_on", "input", "judged", "flagged", "unfit", "first_reason")


@dataclass(frozen=True)
class Patient:
    """The scans of a subject: images and labels (z, y, x) each, spacing in mm, and times."""

    images: list[np.ndarray]
    labels: list[np.ndarray]
    spacing: tuple[float, ...]
    times: list[float]

    @property
    def alone(self) -> bool:
        return len(self.images) == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of acdc and hippocampus; without it, phantoms alone")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the table (default: here)")
    parser.add_argument("--subjects", type=int, default=60, help="of each cohort, at most (default: 60)")
    options = parser.parse_args()
    cohorts = {"phantom": phantoms(options.subjects)}
    if options.data:
        cohorts |= {
            "ACDC": acdc(options.data / "acdc" / "training", options.subjects),
            "T1": hippocampi(options.data / "hippocampus", options.subjects),
        }
    names = list(cohorts)
    others = {name: cohorts[names[place - 1]][0] for place, name in enumerate(names)}
    rows = [row for name, patients in cohorts.items() for row in rows_of_cohort(name, patients, others[name])]
    write_csv(COLUMNS, rows, options.out / "fitness.csv")


def phantoms(most: int) -> list[Patient]:
    found = []
    for seed in range(most):
        subject = draw_subject(seed)
        times = scan_times(subject, SCANS)
        images, labels = zip(*(phantom_scan(subject, moment) for moment in times), strict=True)
        found.append(Patient(list(images), list(labels), voxel_spacing(DEMO_SHAPE), times))
    return found


def drawn(paths: Iterable[Path], most: int) -> list[Path]:
    """Draw subjects: neighbours in a list may come from one scanner."""
    ordered = sorted(paths)
    return [ordered[place] for place in np.random.default_rng(0).permutation(len(ordered))[:most]]


def acdc(folder: Path, most: int) -> list[Patient]:
    found = []
    for patient in drawn(folder.iterdir(), most):
        frames = sorted(path for path in patient.glob("*_frame??.nii.gz"))
        volumes = [read_scan((path,)) for path in frames]
        labels = [read_scan((path.with_name(path.name.replace(".nii", "_gt.nii")),)).array[0] for path in frames]
        times = [float(re.findall(r"frame(\d+)", path.name)[0]) for path in frames]
        spacing = volumes[0].geometry.array_spacing
        found.append(Patient([volume.array[0] for volume in volumes], labels, spacing, times))
    return found


def hippocampi(folder: Path, most: int) -> list[Patient]:
    found = []
    for path in drawn((folder / "images").glob("*.nii.gz"), most):
        volume, label = read_scan((path,)), read_scan((folder / "labels" / path.name.replace("_0000", ""),))
        found.append(Patient([volume.array[0]], [label.array[0]], volume.geometry.array_spacing, [0.0]))
    return found


def observe(patient: Patient, horizon: Sequence[float] = ()) -> Observed:
    looks = [look_at_scan(np.asarray(image)[None], patient.spacing) for image in patient.images]
    return observe_scans(looks) if patient.alone else observe_series(looks, patient.times, horizon)


def rows_of_cohort(name: str, patients: list[Patient], other: Patient) -> list[dict]:
    """Learn from the first two thirds of a cohort, judge the rest."""
    trained = 2 * len(patients) // 3
    begun = time.perf_counter()
    observed = [observe(patient) for patient in patients[:trained]]
    seconds = (time.perf_counter() - begun) / sum(len(one.looks) for one in observed)
    reference = learn_reference(observed)
    print(
        f"\n{name}: learned from {trained} subjects, {1000 * seconds:.0f} ms a scan; doubtful above a score of "
        f"{reference.doubtful:.1f}, unfit above {reference.unfit:.1f}; false alarms at most "
        f"{reference.false_alarms:.1%} by the rank rule"
    )
    rows = []
    for what, corrupt in {"clean": lambda patient, other: patient, **CORRUPTIONS}.items():
        if patients[0].alone and what in OF_SERIES:
            print(f"  {what:28} -")
            continue
        wrong = [corrupt(patient, other) for patient in patients[trained:]]
        verdicts = [judge(observe(patient), reference) for patient in wrong]
        flagged = sum(verdict.level != "fit" for verdict in verdicts)
        unfit = sum(verdict.level == "unfit" for verdict in verdicts)
        reason = next((verdict.reasons[0] for verdict in verdicts if verdict.reasons), "")
        print(f"  {what:28} {flagged:3} of {len(verdicts)} ({unfit:3} unfit)  {reason[:110]}")
        rows.append(dict(zip(COLUMNS, (name, trained, what, len(verdicts), flagged, unfit, reason), strict=True)))
    wrong = [row for row in rows if row["input"] != "clean"]
    share = sum(row["flagged"] for row in wrong) / sum(row["judged"] for row in wrong)
    print(f"  {'all corruptions':28} {share:.1%}")
    return rows


def of_images(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Patient, Patient], Patient]:
    """Change every image of a patient."""
    return lambda patient, other: replace(
        patient, images=[change(np.asarray(image, np.float32)) for image in patient.images]
    )


def noisy(image: np.ndarray) -> np.ndarray:
    return image + np.random.default_rng(0).normal(0, 0.5 * image.std(), image.shape).astype(np.float32)


def cut(patient: Patient, other: Patient) -> Patient:
    return replace(patient, images=[image[:, : image.shape[1] * 6 // 10] for image in patient.images])


def other_organ(patient: Patient, other: Patient) -> Patient:
    """Give the scans of another cohort the grid, mean and standard deviation of the own ones."""
    images = []
    for image, strange in zip(patient.images, other.images * len(patient.images), strict=False):
        factors = [size / given for size, given in zip(image.shape, strange.shape, strict=True)]
        placed = zoom(np.asarray(strange, np.float32), factors, order=1)
        images.append((placed - placed.mean()) / placed.std() * np.std(image) + np.mean(image))
    return replace(patient, images=images)


def last_shifted(patient: Patient, other: Patient) -> Patient:
    """Move the last scan by 15 mm along x, as if its header were wrong."""
    return replace(
        patient, images=[*patient.images[:-1], np.roll(patient.images[-1], round(15 / patient.spacing[2]), axis=2)]
    )


def last_mirrored(patient: Patient, other: Patient) -> Patient:
    return replace(patient, images=[*patient.images[:-1], patient.images[-1][..., ::-1]])


CORRUPTIONS: dict[str, Callable[[Patient, Patient], Patient]] = {
    "mirrored (x)": of_images(lambda image: image[..., ::-1]),
    "mirrored (z)": of_images(lambda image: image[::-1]),
    "wrong spacing (x 1.5)": lambda patient, other: replace(patient, spacing=tuple(1.5 * s for s in patient.spacing)),
    "inverted intensities": of_images(lambda image: image.max() - image),
    "noise (0.5 SD)": of_images(noisy),
    "cut field (60 % of y)": cut,
    "other organ": other_organ,
    "intensities x 10": of_images(lambda image: 10 * image),
    "blurred (1.5 voxels)": of_images(lambda image: gaussian_filter(image, 1.5)),
    "empty": of_images(np.zeros_like),
    "label map as channel": lambda patient, other: replace(patient, images=patient.labels),
    "scans in reverse order": lambda patient, other: replace(patient, images=patient.images[::-1]),
    "times / 1000": lambda patient, other: replace(patient, times=[moment / 1000 for moment in patient.times]),
    "last scan shifted 15 mm": last_shifted,
    "last scan mirrored (x)": last_mirrored,
}
OF_SERIES = ("scans in reverse order", "times / 1000", "last scan shifted 15 mm", "last scan mirrored (x)")


if __name__ == "__main__":
    main()
