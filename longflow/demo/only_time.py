"""A cohort in which only the asked time decides: after CRONOS B.6.2, where explicit time is put to the test.

All hearts beat alike, 75 times a minute from end diastole at time 0; anatomies differ. The scans of a subject lie on a
grid of four beats. Two of the first three are drawn as context, both at end diastole: the change between them is noise.
The third scan is taken in the beat after them, anywhere in it. What it shows follows from the time that is asked for,
and from nothing else; LCI is wrong by all of the contraction.

The same cohort can be written with the order of the scans in place of their times, for a model that "receives no
timestamps" (B.6.2): every scan and every name is the same.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from longflow.data.dataset import DatasetDescription, image_path, write_description, write_scans
from longflow.demo.cohort import is_written, scan_of, write_scan
from longflow.demo.law import Subject, draw_subject

WITH_TIMES, WITHOUT_TIMES = "Dataset903_OnlyTime", "Dataset904_OnlyOrder"

#: of a heartbeat, ms
PERIOD = 800.0
#: beats at which context scans are taken, of which two are drawn
CONTEXT_BEATS = 3
#: when the scan to be forecast is taken, in beats after the last context scan
HORIZON = (0.1, 0.9)
SHAPE = (8, 48, 48)
#: so many that every validation subject of a fold has one target: its last scan
SUBJECTS, TEST_SUBJECTS = 40, 16


def write_only_time(
    folder: Path,
    timestamps: bool,
    subjects: int = SUBJECTS,
    test_subjects: int = TEST_SUBJECTS,
    seed: int = 0,
    shape: tuple[int, int, int] = SHAPE,
) -> None:
    """Write the raw dataset ``folder`` (``.../raw/Dataset903_OnlyTime``); a finished one is left as it is.

    ``imagesTs`` holds the context scans of the held-out subjects and asks for one scan of each, whose truth lies in
    ``targetsTs``.

    :param timestamps: write times in ms; else 0, 1, 2, the order of the scans.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    settings = {
        "timestamps": timestamps,
        "subjects": subjects,
        "test_subjects": test_subjects,
        "seed": seed,
        "shape": list(shape),
    }
    if is_written(folder, settings):
        return
    unit = "ms" if timestamps else "frames"
    description = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit=unit, task="forecast")
    training, held_out = [], []
    for number in range(subjects + test_subjects):
        name, subject = f"heart{number:03d}", equal_heart(1000 * seed + number)
        test = number >= subjects
        images = folder / ("imagesTs" if test else "imagesTr")
        for index, moment in enumerate(moments(subject)):
            time = moment if timestamps else float(index)
            scan = scan_of(images, f"{name}_{index}", name, time, description)
            wanted = test and index == 2
            file = image_path(folder / "targetsTs", scan.case, 0, description) if wanted else scan.images[0]
            write_scan(subject, moment, shape, file)
            (held_out if test else training).append(scan)
    write_scans(training, folder / "scans.csv")
    write_scans(held_out, folder / "imagesTs" / "scans.csv")
    write_description(description, folder / "dataset.json", numTraining=len(training), phantom=settings)


def equal_heart(seed: int) -> Subject:
    """A subject with an anatomy of its own, whose heart beats like all others."""
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
    """Times in ms of the two context scans, at whole beats, and of the scan to be forecast."""
    generator = np.random.default_rng([subject.seed, 7])
    first, last = sorted(generator.choice(CONTEXT_BEATS, 2, replace=False))
    wanted = last + generator.uniform(*HORIZON)
    return [round(float(beat) * PERIOD, 1) for beat in (first, last, wanted)]
