"""The demo of forecasting: beating hearts, scanned at irregular times."""

from pathlib import Path

import numpy as np

from longflow.commands import Command
from longflow.data.dataset import image_path, read_description, read_rows
from longflow.data.images import read_scan
from longflow.demo.cohort import DATASET_NAME, cohort_subject, write_cohort
from longflow.demo.phantom import expected_scan
from longflow.demo.run import CONFIGURATION, Results
from longflow.paths import DatasetPaths
from longflow.reading import read_json
from longflow.tasks.forecast.ladder import CONTEXT_MEAN, LCI, LINEAR, MOTION, PERIODIC, RECURRENCE, RUNG_NAMES, RUNGS
from longflow.tasks.forecast.metrics import nrmse

#: what the rungs of the ladder are called in the table
LADDER = {
    LCI: "last context image (LCI)",
    CONTEXT_MEAN: "mean of the context",
    LINEAR: "linear extrapolation",
    MOTION: "the last motion continued",
    PERIODIC: "interpolation over one period",
    RECURRENCE: "scans repeat, with an inferred period",
}
#: what the test of the difference to the best rung says
VERDICTS = {
    "better": "Compared with the best forecast without training ({}): better beyond chance.",
    "tie": "Compared with the best forecast without training ({}): a tie, the difference is within chance.",
    "worse": "Compared with the best forecast without training ({}): worse beyond chance.",
    None: "Compared with the best forecast without training ({}): too few subjects for a verdict.",
}

TITLE = "beating hearts, scanned at irregular times"
#: training time with which everything together stays under six minutes on two cores
MAX_TIME = 200.0


def raw_folder(home: Path) -> Path:
    """Return the folder of the cohort."""
    return home / "raw" / DATASET_NAME


def forecast_folder(home: Path) -> Path:
    """Return the folder of the forecasts of the held-out subjects, their metrics and their figure."""
    return home / "forecasts"


def write_data(home: Path) -> None:
    """Write the cohort, or keep a finished one."""
    write_cohort(raw_folder(home))


def demo_commands(home: Path, max_time: float) -> list[Command]:
    """List the commands of the demo, in order. :param max_time: seconds of training."""
    dataset = DatasetPaths(DATASET_NAME).id
    images, forecasts = str(raw_folder(home) / "imagesTs"), str(forecast_folder(home))
    return [
        Command("plan_and_preprocess", ("-d", dataset, "--preset", "tiny")),
        Command("train", (dataset, CONFIGURATION, "0", "--max_time", f"{max_time:g}s")),
        Command("find_best", ("-d", dataset)),
        Command("predict", ("-i", images, "-o", forecasts)),
        Command("evaluate", ("-d", dataset, "-i", forecasts)),
        Command("report", ("-d", dataset, "-i", forecasts)),
    ]


def results(home: Path) -> Results:
    """Compare the forecasts with the baselines and with the lowest error that is possible."""
    metrics = read_json(forecast_folder(home) / "metrics.json")["overall"]
    lci = metrics["lci"]["nrmse"]["mean"]
    best = metrics["best_rung"]
    rungs = {rung: metrics[rung]["nrmse"]["mean"] for rung in RUNGS if rung in metrics}
    values = {
        **{LADDER[rung] + (" (best rung)" if rung == best["name"] else ""): value for rung, value in rungs.items()},
        "the trained network": metrics["forecast"]["nrmse"]["mean"],
        "the law itself (only noise remains)": attainable_nrmse(raw_folder(home)),
    }
    compared = {LCI: metrics["better_than_lci"], best["name"]: best["better"]}
    return Results(
        "Held-out subjects, each forecast compared with the acquired scan",
        ("forecast by", "NRMSE", "of LCI"),
        [(name, f"{value:.4f}", f"{value / lci:.2f} x") for name, value in values.items()],
        [
            *(
                f"Better than {RUNG_NAMES[rung]} in {better['better']} of {better['targets']} targets."
                for rung, better in compared.items()
            ),
            VERDICTS[best["verdict"]].format(RUNG_NAMES[best["name"]]),
            "",
            *(f"figure      {figure}" for figure in sorted(forecast_folder(home).rglob("*.png"))),
            f"forecasts   {forecast_folder(home)}",
            f"numbers     {forecast_folder(home) / 'metrics.csv'}",
            f"raw data    {raw_folder(home)}",
        ],
    )


def attainable_nrmse(raw: Path) -> float:
    """Return the mean NRMSE of the law itself over the targets: it is the noise of their scans.

    :param raw: the folder of the cohort.
    """
    description = read_description(raw / "dataset.json")
    found = []
    for row in read_rows(raw / "imagesTs" / "scans.csv"):
        reference = image_path(raw / "targetsTs", row.case, 0, description)
        if reference.is_file():
            target = read_scan((reference,)).array
            law = expected_scan(cohort_subject(raw, row.subject), float(row.time), target.shape[1:])
            found.append(nrmse(law[None], target))
    return float(np.mean(found))
