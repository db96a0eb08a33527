"""Volumes of structures over time: of the acquired scans that are given, and of forecasts, with their intervals."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longflow.data.dataset import DatasetDescription, Scan, read_description, sidecar_path
from longflow.errors import first_few
from longflow.evaluation.conformal import CALIBRATION_JSON, INTERVALS_JSON
from longflow.evaluation.summary import Row
from longflow.files import write_csv, write_json
from longflow.inference.selection import Selection
from longflow.parallel import Progress
from longflow.reading import read_json
from longflow.tasks.forecast.calibration_record import Calibration, identity
from longflow.tasks.forecast.comparison import ACQUIRED, FORECAST
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.forecast.requests import ForecastRequest, forecast_images
from longflow.tasks.segment.predictor import Segmenter
from longflow.tasks.segment.requests import SegmentationRequest
from longflow.tasks.segment.segmented import SEGMENTED, checked_segmenter, write_label_maps

logger = logging.getLogger(__name__)

VOLUMES_CSV = "volumes.csv"

COLUMNS = (
    *("subject", "case", "time", "structure", "source", "horizon", "volume_ml", "lower_ml", "upper_ml", "level"),
    *("repeatability_ml", "changed"),
)

#: in the column "source"
OBSERVED = "observed"


@dataclass(frozen=True)
class ForecastVolumes:
    """A model that segments, ready to write the volumes of a folder of forecasts.

    :param calibration: of it and the model that forecasts; None: volumes have no intervals.
    """

    segmenter: Segmenter
    calibration: Calibration | None

    @classmethod
    def load(cls, forecaster: Forecaster, selection: Selection, device: str | None = None) -> "ForecastVolumes":
        """Load the model that segments, and the calibration of both, where there is one.

        :param selection: the model that segments.
        :param device: that it computes on; None: a GPU where there is one.
        :raises ConfigurationError: the model cannot segment the forecasts, or the calibration is of other models.
        """
        dataset = forecaster.models.selection.dataset
        segmenter = checked_segmenter(
            selection, device, forecaster.models.description.channels, f"the forecasts of {dataset.name}"
        )
        path = dataset.calibration(segmenter.models.selection.dataset.name) / CALIBRATION_JSON
        if not path.is_file():
            logger.warning(
                "The volumes of forecasts have no intervals, since nothing is calibrated yet. Make them with "
                "longflow_calibrate -d %s --structures %s.",
                *(dataset.id, segmenter.models.selection.dataset.id),
            )
            return cls(segmenter, None)
        calibration = Calibration.read(path)
        calibration.check(identity(forecaster), identity(segmenter), path)
        return cls(segmenter, calibration)

    def write(
        self, items: Sequence[ForecastRequest], folder: Path, progress: Progress = lambda *_: None
    ) -> tuple[str, ...]:
        """Segment forecasts and the scans that are given for them; write volumes.csv, and intervals.json.

        :param items: finished forecasts of the folder.
        :param folder: that they are in.
        :returns: the names of the files.
        :raises DataError: a scan cannot be segmented; it is named.
        """
        description = read_description(folder / "dataset.json")
        given = {scan.case: scan for item in items for scan in item.context}
        forecasts = [_scan_of(item, folder, description) for item in items]
        for kind, scans in ((ACQUIRED, given.values()), (FORECAST, forecasts)):
            requests = [SegmentationRequest(scan) for scan in scans]
            write_label_maps(self.segmenter, requests, folder / SEGMENTED / kind, description, progress)
        # other kinds of forecasts than the calibrated ones
        hidden = any(item.hidden is not None for item in items)
        sampled = any(item.sampling is not None for item in items)
        calibration = None if hidden or sampled else self.calibration
        rows = [row for scan in given.values() for row in _observed(scan, folder)]
        rows += [row for item in items for row in _forecast(item, folder, calibration)]
        rows.sort(key=lambda row: (row["subject"], row["structure"], row["time"]))
        write_csv(COLUMNS, rows, folder / VOLUMES_CSV)
        (folder / INTERVALS_JSON).unlink(missing_ok=True)
        if calibration is not None:
            write_json(calibration.record, folder / INTERVALS_JSON)
            _warn_of_horizons(rows, calibration)
        elif hidden:
            logger.warning(
                "Forecasts with hidden context scans (--hide_context) have no intervals: those that were calibrated "
                "are made from all scans."
            )
        elif sampled:
            logger.warning(
                "Means of samples (--samples) have no intervals: those that were calibrated are of ordinary forecasts."
            )
        intervals = (INTERVALS_JSON,) if calibration is not None else ()
        return (VOLUMES_CSV, *intervals, f"{SEGMENTED}/")


def _scan_of(item: ForecastRequest, folder: Path, description: DatasetDescription) -> Scan:
    """Return a forecast as a scan to segment."""
    images = forecast_images(item, folder, description)
    return Scan(item.target.case, item.target.subject, item.target.time, tuple(images))


def _observed(scan: Scan, folder: Path) -> list[Row]:
    """Return a row for each structure of a scan that is given."""
    place = {"subject": scan.subject, "case": scan.case, "time": scan.time, "source": OBSERVED}
    volumes = _volumes(folder, ACQUIRED, scan.case)
    return [{**place, "structure": name, "volume_ml": volume} for name, volume in volumes.items()]


def _forecast(item: ForecastRequest, folder: Path, calibration: Calibration | None) -> list[Row]:
    """Return a row for each structure of a forecast, with its interval where there is one."""
    target, rows = item.target, []
    last = _volumes(folder, ACQUIRED, max(item.context, key=lambda scan: scan.time).case)
    place = {"subject": target.subject, "case": target.case, "time": target.time, "source": FORECAST}
    for name, volume in _volumes(folder, FORECAST, target.case).items():
        row = {**place, "structure": name, "horizon": item.horizon, "volume_ml": volume}
        limits = calibration.intervals[name].interval(volume, item.horizon) if calibration else None
        if calibration and limits:
            row |= {"lower_ml": limits[0], "upper_ml": limits[1], "level": calibration.level}
            noise, changed = (
                calibration.repeatability.get(name),
                calibration.is_change(name, volume, limits, last[name]),
            )
            row["repeatability_ml"] = noise.coefficient if noise else None
            row["changed"] = None if changed is None else int(changed)
        rows.append(row)
    return rows


def _warn_of_horizons(rows: Sequence[Row], calibration: Calibration) -> None:
    """Say which forecasts have no intervals, since their horizon is not among those that were calibrated."""
    if without := sorted({row["case"] for row in rows if row["source"] == FORECAST and "level" not in row}):
        groups, unit = next(iter(calibration.intervals.values())).groups, calibration.record["time_unit"]
        logger.warning(
            "%d forecasts have no intervals (%s): their horizon is not among those that were calibrated, %g to %g %s.",
            *(len(without), first_few(without), groups[0].shortest, groups[-1].longest, unit),
        )


def _volumes(folder: Path, kind: str, case: str) -> dict[str, float]:
    """Return the volume of each structure in ml, as the sidecar of its label map has it."""
    volumes = read_json(sidecar_path(folder / SEGMENTED / kind, case), dict)["volumes"]
    return {name: one["volume_ml"] for name, one in volumes.items()}
