"""The record of a calibration: intervals of volumes, and the two models whose forecasts and label maps they are of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longflow.errors import ConfigurationError, DataError
from longflow.evaluation.horizon_intervals import HorizonIntervals
from longflow.evaluation.repeatability import Repeatability
from longflow.inference.predictor import Predictor
from longflow.reading import read_json
from longflow.tasks.forecast.segmented import SEGMENTED_SCAN

#: raised whenever the record has another meaning
FORMAT = 1


@dataclass(frozen=True)
class Calibration:
    """Intervals of the volumes in forecasts of one model, segmented by another one.

    :param level: lowest probability with which an interval holds.
    :param intervals: of each structure.
    :param references: of each structure: what a volume was compared with, "labels" or "segmented scan".
    :param record: content of calibration.json.
    :param segmenter: dataset, method, configuration and folds of the model that segments.
    :param repeatability: of each structure's volume, ml; empty where no pairs of scans were given.
    """

    level: float
    intervals: Mapping[str, HorizonIntervals]
    references: Mapping[str, str]
    record: Mapping[str, Any]
    segmenter: tuple[str, str, str, tuple[int, ...]] = ("", "", "", ())
    repeatability: Mapping[str, Repeatability] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """Read calibration.json, or its copy next to predictions.

        :raises DataError: it is something else.
        """
        record = read_json(path, dict)
        try:
            if record["format"] != FORMAT or not record["by_structure"]:
                raise DataError("It has another format, or nothing is calibrated.")
            of_structures = dict(record["by_structure"])
            intervals = {name: HorizonIntervals.of_record(one["intervals"]) for name, one in of_structures.items()}
            references = {name: str(one["reference"]) for name, one in of_structures.items()}
            (method,), (configuration,), (folds,) = (
                record["segmenter"][key] for key in ("method", "configuration", "folds")
            )
            segmenter = str(record["segmenter"]["dataset"]), str(method), str(configuration), tuple(map(int, folds))
            noise = {
                name: Repeatability.of_record(one["repeatability"])
                for name, one in of_structures.items()
                if one.get("repeatability") is not None
            }
            return cls(float(record["level"]), intervals, references, record, segmenter, noise)
        except (AttributeError, KeyError, TypeError, ValueError, DataError) as error:
            raise DataError(
                f"{path} is not a calibration of this version of longflow. Run longflow_calibrate again."
            ) from error

    def is_change(self, structure: str, forecast: float, limits: tuple[float, float], observed: float) -> bool | None:
        """Tell whether a forecast volume is a change: beyond its interval, and beyond the measurement noise.

        :param structure: name.
        :param forecast: volume in the forecast, ml.
        :param limits: of its interval.
        :param observed: volume in the last context scan, ml, by the same segmenter.
        :returns: None where the noise is not known, or where the interval is of volumes that a rater draws, to which
            the observed one cannot be compared.
        """
        if structure not in self.repeatability or self.references[structure] != SEGMENTED_SCAN:
            return None
        beyond_interval = not limits[0] <= observed <= limits[1]
        return beyond_interval and abs(forecast - observed) > self.repeatability[structure].coefficient

    def check(self, forecaster: Mapping[str, Any], segmenter: Mapping[str, Any], path: Path) -> None:
        """Check that the calibration is of these models.

        :param forecaster: identity of the model that forecasts (:func:`identity`).
        :param segmenter: identity of the model that segments.
        :param path: of the calibration, for the message.
        :raises ConfigurationError: it is of others; the first difference is named.
        """
        for key, words, now in (("model", "forecasts", forecaster), ("segmenter", "segments", segmenter)):
            then = self.record.get(key)
            if then == now:
                continue
            known = then if isinstance(then, dict) else {}
            different = next(name for name in [*now, *known] if now.get(name) != known.get(name))
            what = "weights or plans" if different == "digests" else different
            values = "" if different == "digests" else f" ({known.get(different)}, now {now.get(different)})"
            raise ConfigurationError(
                f"{path} was calibrated with another model that {words}: its {what} differ{values}. Its intervals say "
                "nothing about these volumes. Run longflow_calibrate again with the model that you predict with."
            )


def identity(predictor: Predictor) -> dict[str, Any]:
    """Return what distinguishes a model and its settings from any other, JSON-ready."""
    return {**predictor.settings(), "digests": predictor.models.digests()}
