"""Judge the intervals of volumes in a folder of forecasts: how many held, how wide they are, and their CRPS."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longflow.errors import NotFoundError
from longflow.evaluation.conformal import INTERVALS_JSON
from longflow.evaluation.crps import crps
from longflow.evaluation.intervals import share_interval
from longflow.evaluation.summary import Row, summary
from longflow.inference.selection import Selection, select
from longflow.tasks.forecast.calibration_record import Calibration, identity
from longflow.tasks.forecast.comparison import ACQUIRED, FORECAST
from longflow.tasks.forecast.ladder import LCI
from longflow.tasks.forecast.segmented import LABELS
from longflow.tasks.segment.predictor import Segmenter

logger = logging.getLogger(__name__)

#: that are summarised over subjects
NUMBERS = ("width_ml", "crps_ml", "lci_error_ml")

INTERVAL_COLUMNS = ("lower_ml", "upper_ml", "covered", *NUMBERS)

INTERVAL_DEFINITIONS = {
    "lower_ml, upper_ml": "the interval of the volume in the forecast",
    "covered": "1 where the interval holds the volume in the acquired scan, else 0; of one kind of reference, that of "
    "the calibration (labels, or the segmented scan). Undefined where there is no interval or no such reference",
    "coverage": "share of targets that are covered, with its exact 95 % interval (Clopper & Pearson; Korn & Graubard "
    "1998, since a subject's targets are alike). Expected: the level, or a little above",
    "width_ml": "upper - lower, ml",
    "crps_ml": "continuous ranked probability score of the forecast with its uncertainty, ml; lower is better. Of a "
    "volume without uncertainty, as that of LCI, it is the absolute error",
    "lci_error_ml": "|volume in the last context scan - reference volume|, of the same targets and references",
}


def recorded_segmenter(folder: Path) -> Selection | None:
    """Select the model that segmented a folder with intervals; None where it has none, or the model is not here.

    :param folder: of forecasts.
    :raises DataError: its record of the intervals was changed.
    """
    path = folder / INTERVALS_JSON
    if not path.is_file():
        return None
    dataset, method, configuration, folds = Calibration.read(path).segmenter
    try:
        return select(dataset, configuration, method, folds)
    except NotFoundError as error:
        logger.warning("The intervals of %s are not judged, since their segmentation model is missing: %s", path, error)
        return None


def calibration_of_folder(folder: Path, segmenter: Segmenter) -> Calibration | None:
    """Read the calibration of a folder's intervals; None where it has none, or where another model segmented.

    :param folder: of forecasts.
    :param segmenter: by which the forecasts are segmented now.
    :raises DataError: the record was changed.
    """
    path = folder / INTERVALS_JSON
    if not path.is_file():
        return None
    calibration = Calibration.read(path)
    if calibration.record["segmenter"] != identity(segmenter):
        logger.warning("The intervals of %s are not judged: they are of volumes by another segmentation model.", path)
        return None
    return calibration


def judge_intervals(rows: Sequence[Row], calibration: Calibration) -> None:
    """Add the columns of :data:`INTERVAL_COLUMNS` to the rows of forecasts that have an interval.

    :param rows: of every target and structure, as in metrics_structures.csv.
    """
    volumes = {(row["method"], row["case"], row["structure"]): row["volume_ml"] for row in rows}
    for row in rows:
        intervals = calibration.intervals[row["structure"]]
        limits = intervals.interval(row["volume_ml"], row["horizon"])
        if row["method"] != FORECAST or limits is None:
            continue
        row |= {"lower_ml": limits[0], "upper_ml": limits[1], "width_ml": limits[1] - limits[0]}
        by_label = row["reference"] == LABELS
        if calibration.references[row["structure"]] == LABELS:
            reference = row["true_volume_ml"] if by_label else None
        else:  # where there is a label map, the segmented scan has a row of its own
            reference = volumes[ACQUIRED, row["case"], row["structure"]] if by_label else row["true_volume_ml"]
        if reference is not None:
            row["covered"] = int(limits[0] <= reference <= limits[1])
            row["crps_ml"] = crps(intervals.sample(row["volume_ml"], row["horizon"]), reference)
            row["lci_error_ml"] = abs(volumes[LCI, row["case"], row["structure"]] - reference)


def summarise_intervals(rows: Sequence[Row], calibration: Calibration) -> dict[str, Any]:
    """Summarise the intervals of a structure over subjects; JSON-ready.

    :param rows: of one structure, judged.
    :returns: reference, coverage (share, covered, targets, interval), width_ml, crps_ml and lci_error_ml.
    """
    judged = [row for row in rows if row.get("covered") is not None]
    subjects = [row["subject"] for row in judged]
    targets = Counter(subjects)
    held = Counter(row["subject"] for row in judged if row["covered"])
    return {
        "reference": calibration.references[rows[0]["structure"]],
        "coverage": {
            "share": held.total() / len(judged) if judged else None,
            "covered": held.total(),
            "targets": len(judged),
            "interval": share_interval([held[subject] for subject in targets], list(targets.values())),
        },
        **{name: summary(subjects, [row[name] for row in judged]) for name in NUMBERS},
    }
