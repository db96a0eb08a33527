"""The demo of translation: abdominal CT without contrast made from arterial CT, and back, by one network."""

from pathlib import Path

import numpy as np

from longflow.commands import Command
from longflow.data.body import body_of_scan
from longflow.data.dataset import read_description, series_of_folder
from longflow.data.images import read_scan
from longflow.data.phases import phase_pairs
from longflow.demo.abdomen import PHASES, knowable_scan
from longflow.demo.abdomen_cohort import DATASET_NAME, cohort_patient, write_abdomen_cohort
from longflow.demo.run import Results
from longflow.evaluation.metric import compute_metrics
from longflow.paths import DatasetPaths
from longflow.reading import read_json
from longflow.tasks.translate.metrics import TRANSLATION_METRICS, TranslationVolumes

TITLE = "abdomens in CT, each native and in the arterial phase of contrast"
#: axial slices, as in MFM's paper
CONFIGURATION = "2d"
#: training time with which everything together stays under six minutes on two cores
MAX_TIME = 200.0

#: (name in metrics.json, heading, decimals)
SHOWN = (("body_mae", "MAE in the body, HU", 1), ("psnr", "PSNR, dB", 1), ("ssim", "SSIM", 3))


def raw_folder(home: Path) -> Path:
    """Return the folder of the cohort."""
    return home / "raw" / DATASET_NAME


def translation_folder(home: Path, phase: str) -> Path:
    """Return the folder of the held-out scans translated to a phase, with their metrics and figures."""
    return home / "translations" / f"to_{phase}"


def write_data(home: Path) -> None:
    """Write the cohort, or keep a finished one."""
    write_abdomen_cohort(raw_folder(home))


def demo_commands(home: Path, max_time: float) -> list[Command]:
    """List the commands of the demo: one training, then both directions. :param max_time: seconds of training."""
    dataset, images = DatasetPaths(DATASET_NAME).id, str(raw_folder(home) / "imagesTs")
    commands = [
        Command("plan_and_preprocess", ("-d", dataset, "--preset", "tiny")),
        Command("train", (dataset, CONFIGURATION, "0", "--max_time", f"{max_time:g}s")),
    ]
    for phase in PHASES:
        out = str(translation_folder(home, phase))
        commands += [
            Command("predict", ("-d", dataset, "-i", images, "-o", out, "--to", phase)),
            Command("evaluate", ("-d", dataset, "-i", out)),
            Command("report", ("-d", dataset, "-i", out)),
        ]
    return commands


def results(home: Path) -> Results:
    """Compare each direction with the untranslated scan and with the best that the other phase allows."""
    rows = []
    for target, source in (PHASES, PHASES[::-1]):
        metrics = read_json(translation_folder(home, target) / "metrics.json")["by_direction"][target]
        found = {image: {key: metrics[image][key]["mean"] for key, *_ in SHOWN} for image in ("input", "translation")}
        found["knowable"] = knowable_numbers(raw_folder(home), target)
        names = (f"{source}, as it is", f"translated to {target}", "at best (only noise remains)")
        for name, numbers in zip(names, found.values(), strict=True):
            cells = [f"{numbers[key]:.{decimals}f}" for key, _, decimals in SHOWN]
            share = numbers["body_mae"] / found["input"]["body_mae"]
            rows.append((name, cells[0], f"{share:.2f} x", *cells[1:]))
    folder = home / "translations"
    return Results(
        "Held-out subjects, each compared with the acquired scan of the requested phase",
        ("scan", SHOWN[0][1], "of the input's", *(heading for _, heading, _ in SHOWN[1:])),
        rows,
        [
            "One network made both. No clinical conclusion should rest on a synthesised image alone.",
            "",
            *(f"figure      {figure}" for figure in sorted(folder.rglob("*.png"))),
            f"scans       {folder}",
            f"raw data    {raw_folder(home)}",
        ],
    )


def knowable_numbers(raw: Path, phase: str) -> dict[str, float]:
    """Score :func:`longflow.demo.abdomen.knowable_scan` on the held-out subjects.

    :param raw: the folder of the cohort.
    :returns: the mean of each metric of ``SHOWN``.
    """
    description = read_description(raw / "dataset.json")
    breathing = read_json(raw / "dataset.json")["phantom"]["breathing"]
    found = []
    for series in series_of_folder(raw / "imagesTs", description):
        for pair in phase_pairs(series, PHASES):
            reference = read_scan((pair.first if phase == PHASES[0] else pair.second).images)
            patient = cohort_patient(raw, series.subject)
            best = knowable_scan(patient, phase, reference.array.shape[1:], breathing)[None].astype(np.float32)
            ct = description.is_ct
            body, spacing = body_of_scan(reference.array, ct), reference.geometry.array_spacing
            found.append(
                compute_metrics(TRANSLATION_METRICS, TranslationVolumes(best, reference.array, spacing, body, ct))
            )
    return {key: float(np.mean([numbers[key] for numbers in found])) for key, *_ in SHOWN}
