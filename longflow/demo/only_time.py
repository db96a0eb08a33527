"""A cohort in which the requested time alone decides the target (CRONOS B.6.2 tests explicit time so).

All hearts beat alike, 75 times a minute from end diastole at time 0; anatomies differ. The scans of a subject are taken
on a grid of four beats. Two of the first three are drawn as context, both at end diastole: the change between them is
noise. The third scan is taken at any moment of the beat after them. Only the requested time tells which moment. The
error of LCI is the whole contraction.

The same cohort can be written with the order of the scans in place of their times, for a model that "receives no
timestamps" (B.6.2): every scan and every name is the same.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from longflow.data.dataset import DatasetDescription, Scan
from longflow.demo.cohort import heart_scan
from longflow.demo.law import Subject, draw_subject
from longflow.demo.writing import PhantomScan, cohort_settings, subject_seed, write_cohort_dataset

WITH_TIMES, WITHOUT_TIMES = "Dataset903_OnlyTime", "Dataset904_OnlyOrder"

#: of a heartbeat, ms
PERIOD = 800.0
#: beats at which context scans are taken, of which two are drawn
CONTEXT_BEATS = 3
#: when the target is taken, in beats after the last context scan
HORIZON = (0.1, 0.9)
SHAPE = (8, 48, 48)
#: enough that every validation subject of a fold has one target: its last scan
SUBJECTS, TEST_SUBJECTS = 40, 16


def write_only_time(
    folder: Path,
    timestamps: bool,
    subjects: int = SUBJECTS,
    test_subjects: int = TEST_SUBJECTS,
    seed: int = 0,
    shape: tuple[int, int, int] = SHAPE,
) -> None:
    """Write the raw dataset ``folder`` (``.../raw/Dataset903_OnlyTime``); keep a finished one.

    ``imagesTs`` holds the context scans of the held-out subjects and requests one scan of each; the references are in
    ``targetsTs``. No labels are written.

    :param timestamps: write times in ms; else 0, 1, 2, the order of the scans.
    :param shape: (z, y, x) voxels.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    settings = cohort_settings(subjects, test_subjects, seed, shape, timestamps=timestamps)
    unit = "ms" if timestamps else "frames"
    description = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit=unit, task="forecast")

    def draw(number: int) -> Iterator[PhantomScan]:
        name, subject = f"heart{number:03d}", equal_heart(subject_seed(seed, number))
        for index, moment in enumerate(moments(subject)):
            scan = Scan(f"{name}_{index}", name, moment if timestamps else float(index), ())
            is_target = number >= subjects and index == 2
            yield replace(heart_scan(subject, moment, scan, shape, is_target), label=None)

    write_cohort_dataset(folder, description, settings, draw)


def equal_heart(seed: int) -> Subject:
    """Draw a subject with its own anatomy, whose heart beats like all others."""
    return replace(
        draw_subject(seed),
        period=PERIOD,
        phase=0.0,
        ejection_fraction=0.61,
        shortening=0.16,
        twist=0.20,
        rv_contraction=0.28,
        rv_delay=0.12,
    )


def moments(subject: Subject) -> list[float]:
    """Draw the times in ms of the two context scans, at whole beats, and of the target."""
    generator = np.random.default_rng([subject.seed, 7])
    first, last = sorted(generator.choice(CONTEXT_BEATS, 2, replace=False))
    target = last + generator.uniform(*HORIZON)
    return [round(float(beat) * PERIOD, 1) for beat in (first, last, target)]
