"""Write the cohort of growing and moving visits, and print how good a forecast can be in each normal form.

A tumour grows by Gompertz's law and pushes its surroundings, breathing has a period of its own in each subject, days
are irregular. All visits share their intensity units, or each has a gain and an offset of its own (`--own_units`).

A perfect network knows the law: it forecasts the mean of all scans that the noise could give, in the normal form of the
target. The forecast is then mapped back with the last context scan's numbers, since a forecast has none of its own.
What remains is the noise of the target and the error of the normal form. Printed is the RMSE over that of the last
context image (LCI), for the targets of the held-out subjects, in the last context scan's units (by the true map).

    python benchmarks/visits.py raw/Dataset903_Visits
    python benchmarks/visits.py raw/Dataset904_Visits --own_units --seed 1

The dataset is then one of longflow: `longflow_plan_and_preprocess -d 903`.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from longflow.data.dataset import series_of_folder, training_series
from longflow.data.images import read_scan
from longflow.demo.visits import expected_visit, visit_units
from longflow.demo.visits_cohort import visits_subject, write_visits_cohort
from longflow.fingerprint.intensities import combine_maps, neighbour_maps
from longflow.planning.channels import form_of_visits
from longflow.plans import ChannelPlan
from longflow.preprocessing.normal_form import from_normal, normal_form_of_series, to_normal

FORMS = ("per_scan", "per_subject", "matched")
TRUE = "true map"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the raw dataset, as raw/Dataset903_Visits")
    parser.add_argument("--subjects", type=int, default=24, help="for training (default: 24)")
    parser.add_argument("--test_subjects", type=int, default=8, help="held out (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--own_units", action="store_true", help="each visit has a gain and an offset of its own")
    options = parser.parse_args()
    shared = not options.own_units
    write_visits_cohort(options.folder, options.subjects, options.test_subjects, options.seed, shared=shared)
    description, training = training_series(options.folder)
    maps = combine_maps(
        [neighbour_maps([read_scan(scan.images).array for scan in one.scans]) for one in training],
    )
    form, reason = form_of_visits(maps["0"] if maps else None)
    print(f"Planning chooses {form}: visits, {reason}.")
    show(
        [
            bounds(options.folder, series, shared)
            for series in series_of_folder(options.folder / "imagesTs", description)
        ]
    )


def bounds(folder: Path, series, shared: bool) -> list[dict[str, float]]:
    """Measure the targets of a subject: RMSE of a perfect network over LCI's in each normal form."""
    subject = visits_subject(folder, series.subject)
    context = [read_scan(scan.images).array for scan in series.scans if scan.exists]
    last_time = max(scan.time for scan in series.scans if scan.exists)
    measured = []
    for scan in series.scans:
        if scan.exists:
            continue
        target = read_scan((folder / "targetsTs" / scan.images[0].name,)).array
        perfect = expected_visit(subject, scan.time, target.shape[1:], shared)[None]
        (gain, offset), (last_gain, last_offset) = (
            visit_units(subject, time, shared) for time in (scan.time, last_time)
        )

        def in_last_units(image: np.ndarray, unit=(gain, offset), last=(last_gain, last_offset)) -> np.ndarray:
            return (image - unit[1]) / unit[0] * last[0] + last[1]

        reference = in_last_units(target)
        forecasts = {TRUE: in_last_units(perfect)}
        for form in FORMS:
            plan = ChannelPlan(name="MR", normal_form=form)
            offsets, scales = normal_form_of_series([*context, target], [plan])
            forecasts[form] = from_normal(to_normal(perfect, offsets[-1], scales[-1]), offsets[-2], scales[-2])
        lci = rmse(context[-1] - reference)
        measured.append({form: rmse(forecast - reference) / lci for form, forecast in forecasts.items()})
    return measured


def rmse(error: np.ndarray) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))


def show(of_subjects: list[list[dict[str, float]]]) -> None:
    """Print mean over subjects, and the worst target."""
    table = Table(title="RMSE of a perfect network over LCI's")
    for heading in ("normal form", "mean over subjects", "worst target"):
        table.add_column(heading, justify="left" if heading == "normal form" else "right")
    for form in (*FORMS, TRUE):
        means = [np.mean([target[form] for target in targets]) for targets in of_subjects]
        worst = max(target[form] for targets in of_subjects for target in targets)
        table.add_row(form, f"{np.mean(means):.3f}", f"{worst:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
