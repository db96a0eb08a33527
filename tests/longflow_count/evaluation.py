"""Compare counts with the labelled voxels, and choose the model with the lowest error."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from longflow.data.dataset import read_rows
from longflow.data.images import read_image
from longflow.evaluation.best import comparable_models, member, record_best, validation_folder
from longflow.evaluation.evaluation import Evaluation
from longflow.evaluation.metric import Metric, compute_metrics, metrics_of
from longflow.evaluation.summary import summary
from longflow.files import write_csv, write_json
from longflow.paths import METRICS_CSV, METRICS_JSON
from longflow.reading import read_json

from .task import TASK


@dataclass(frozen=True)
class ComparedCount:
    """A count and its reference, in voxels."""

    prediction: float
    reference: float


def count_error(compared: ComparedCount) -> float:
    """Return the absolute error."""
    return abs(compared.prediction - compared.reference)


COUNT_ERROR = Metric(
    "count_error", "count", count_error, "absolute error of the count", better="lower", unit="voxels", heading="error"
)


def rows_of(predictions: Path, references: list[Path], ending: str) -> list[dict]:
    """Measure every prediction of a folder."""
    rows = []
    for row in read_rows(predictions / "scans.csv"):
        label = next(path for folder in references if (path := folder / f"{row.case}{ending}").is_file())
        reference = float((sitk.GetArrayFromImage(read_image(label)) > 0).sum())
        count = read_json(predictions / f"{row.case}.json")["count"]
        metrics = compute_metrics(metrics_of(TASK), ComparedCount(count, reference))
        rows.append({"case": row.case, "subject": row.subject, "count": count, "reference": reference, **metrics})
    return rows


def evaluate_counts(job) -> Evaluation:
    """Evaluate a folder of counts."""
    references = [*job.references, job.raw / "labelsTs", job.raw / "labelsTr"]
    rows = rows_of(job.predictions, references, job.description.file_ending)
    results = {"task": TASK.name, "overall": summary([r["subject"] for r in rows], [r["count_error"] for r in rows])}
    write_csv(list(rows[0]), rows, job.predictions / METRICS_CSV)
    write_json(results, job.predictions / METRICS_JSON)
    return Evaluation(results, (METRICS_CSV, METRICS_JSON), partial(_show, results))


def _show(results: dict, console) -> None:
    console.print(f"Mean error: {results['overall']['mean']:.1f} voxels")


def find_best(dataset) -> dict:
    """Choose the model with the lowest error of the out-of-fold counts."""
    ending = read_json(dataset.raw / "dataset.json")["file_ending"]
    models, folds = comparable_models(dataset, dataset.models())
    table = []
    for model in models:
        folders = [validation_folder(model, fold, "counts") for fold in folds]
        rows = [row for folder in folders for row in rows_of(folder, [dataset.raw / "labelsTr"], ending)]
        table.append({"candidate": model.folder.name, "count_error": float(np.mean([r["count_error"] for r in rows]))})
    best = min(table, key=lambda row: row["count_error"])
    chosen = next(model for model in models if model.folder.name == best["candidate"])
    content = {"dataset": dataset.name, "task": TASK.name, **best, "members": [member(chosen, folds)]}
    return record_best(dataset, {**content, "reduction": None, "shrinkage": 1.0, "table": table})
