"""Forecast the last scans of every subject from its first ones, by the folds that were not trained on it.

Every subject that validates a trained fold becomes an input folder: its first scans, and a line of scans.csv without an
image for each later one. ``longflow_predict`` forecasts these, with that fold alone, and ``longflow_evaluate`` compares
them with the acquired scans, LCI and the best rung of the ladder. With fewer than five subjects each is a fold.

    longflow_import nifti4d cines -d 401 --images '{subject}_cine.nii.gz' --times frames
    (write "period": 20 into dataset.json, if the 20 frames of a cine are one beat)
    longflow_plan_and_preprocess -d 401 --preset tiny
    longflow_train 401 3d_fullres all -m cronos_motion --max_time 7m
    python benchmarks/leave_one_out.py 401 --given 14 --method cronos_motion

The printed numbers are shares of LCI's: NRMSE over the whole volume and in the changed region.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from longflow.data.dataset import read_description, series_of_folder
from longflow.files import write_csv
from longflow.paths import DatasetPaths, resolve_dataset_name

#: rows of a table of numbers, in shares of LCI's
SHOWN = {"nrmse": "whole", "changed_nrmse": "changed region"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="id or name; its folds are trained")
    parser.add_argument("--given", type=int, default=14, help="first scans that forecasts are made from (default: 14)")
    parser.add_argument("--method", default="cronos")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, help="folder to keep inputs and forecasts in (default: a temporary one)")
    options = parser.parse_args()
    dataset = DatasetPaths(resolve_dataset_name(options.dataset))
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for fold, split in enumerate(json.loads(dataset.splits.read_text(encoding="utf-8"))):
            for subject in split["val"]:
                show(subject, forecast_subject(subject, fold, dataset, options, work))


def forecast_subject(
    subject: str, fold: int, dataset: DatasetPaths, options: argparse.Namespace, work: Path
) -> dict[str, dict]:
    """Forecast and evaluate a subject; returns ``overall`` of metrics.json."""
    given, forecasts = work / f"{subject}_given", work / f"{subject}_forecasts"
    for folder in (given, forecasts):
        shutil.rmtree(folder, ignore_errors=True)
    given.mkdir(parents=True)
    description = read_description(dataset.raw / "dataset.json")
    series = {one.subject: one for one in series_of_folder(dataset.raw / "imagesTr", description)}[subject]
    for scan in series.scans[: options.given]:
        for path in scan.images:
            os.symlink(path.resolve(), given / path.name)
    columns = ["case", "subject", "time", *series.scans[0].covariates]
    rows = [
        {"case": scan.case, "subject": subject, "time": repr(scan.time), **scan.covariates} for scan in series.scans
    ]
    write_csv(columns, rows, given / "scans.csv", exact=True)
    shutil.copyfile(dataset.raw / "dataset.json", given / "dataset.json")
    of_model = ["-m", options.method, "-c", options.configuration, "-f", str(fold), "--device", options.device]
    run("predict", "-d", dataset.name, "-i", str(given), "-o", str(forecasts), *of_model)
    run("evaluate", "-d", dataset.name, "-i", str(forecasts), "-r", str(dataset.raw / "imagesTr"))
    return json.loads((forecasts / "metrics.json").read_text(encoding="utf-8"))["overall"]


def run(command: str, *arguments: str) -> None:
    """Run a command of longflow; stop with its message where it fails."""
    done = subprocess.run([f"longflow_{command}", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"longflow_{command} failed:\n{done.stderr or done.stdout}")


def show(subject: str, overall: dict[str, dict]) -> None:
    """Print a subject's line: the forecast and the best rung, and how often the forecast is better than each."""
    rung = overall["best_rung"]["name"]
    parts = []
    for name, title in SHOWN.items():
        forecast, best, lci = (overall[method][name]["mean"] for method in ("forecast", rung, "lci"))
        parts.append(f"{title} {forecast / lci:.3f} ({rung} {best / lci:.3f})")
    better = " and ".join(
        f"{counts['better']} of {counts['targets']} than {name}"
        for name, counts in (("LCI", overall["better_than_lci"]), (rung, overall["best_rung"]["better"]))
    )
    print(
        f"{subject}: {', '.join(parts)}; edges {overall['forecast']['edges']['mean']:.2f}; better {better}", flush=True
    )


if __name__ == "__main__":
    main()
