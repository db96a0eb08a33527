"""Label maps of forecasts, of baselines and of the acquired scans, all by one trained model of the task ``segment``.

They are predictions of that model like any other: each has its sidecar with digests, finished ones are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from longflow.data.dataset import Scan, label_path, sidecar_path
from longflow.data.images import Volume, read_scan
from longflow.data.labels import structures
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.evaluation.evaluation import EvaluationJob
from longflow.evaluation.references import Files, dataset_folders
from longflow.inference.fitness import judge_scan
from longflow.parallel import Progress
from longflow.tasks.forecast.comparison import ACQUIRED, FORECAST
from longflow.tasks.forecast.ladder import LCI, MOTION, read_given, rungs
from longflow.tasks.forecast.pairs import ForecastPrediction
from longflow.tasks.segment.label_maps import LABEL_FOLDERS, Structures
from longflow.tasks.segment.predictor import ScanToSegment, Segmenter
from longflow.tasks.segment.requests import SegmentationRequest
from longflow.tasks.segment.segmented import SEGMENTED, case_of, checked_segmenter, write_label_maps

#: what the reference of a volume is taken from
LABELS, SEGMENTED_SCAN = "labels", "segmented scan"

#: folders of scans in a raw dataset; labelsTr or labelsTs is next to them
IMAGE_FOLDERS = ("imagesTr", "imagesTs", "targetsTs")


@dataclass(frozen=True)
class RungRequest(SegmentationRequest):
    """A forecast without training to segment. It is made where it is read, so that no file holds it.

    :param rung: its name.
    :param step: of ``motion``.
    """

    pair: ForecastPrediction
    rung: str
    step: float

    def provenance(self) -> dict[str, Any]:
        """Return the fields of the sidecar that say how the rung was made."""
        pair = self.pair
        made = {"rung": self.rung, "motion_step": self.step, "horizon": pair.horizon}
        repeats = {"period": pair.period, "recurrence": pair.recurrence}
        return {**super().provenance(), **made, **repeats, "context_times": sorted(pair.context_times)}


class RungSegmenter(Segmenter):
    """A trained model, ready to segment forecasts without training."""

    def inputs(self, item: RungRequest) -> Sequence[Path]:
        """Return the images of the context scans that the rung is made of."""
        return list(chain.from_iterable(item.pair.context_images))

    def read(self, item: RungRequest) -> ScanToSegment:
        """Make the rung and prepare it."""
        reference = read_scan(item.pair.reference)
        ladder = rungs(read_given(item.pair, reference), {MOTION: item.step})
        array = next(rung.forecast for rung in ladder if rung.name == item.rung)
        volume = Volume(array, reference.geometry, "float32")
        verdict = judge_scan(volume, self.models.plans, item.target.case)
        return ScanToSegment(volume.geometry, self.prepare(volume, item.target.case), [], verdict)


def load_segmenter(job: EvaluationJob) -> Segmenter:
    """Load the model that segments the forecasts of an evaluation. :param job: names the model."""
    return checked_segmenter(job.segmenter, job.device, job.description.channels, f"the forecasts of {job.raw.name}")


@dataclass(frozen=True)
class LabelsOfDataset:
    """The label maps that were drawn, and what their values mean.

    :param paths: label map of each labelled case.
    """

    structures: Structures
    paths: Mapping[str, Path]


def find_labels(job: EvaluationJob, segmenter: Segmenter, cases: Sequence[str]) -> LabelsOfDataset:
    """Find the label maps of acquired scans: in the folders of ``-r``, next to them, and in the dataset.

    Their values are named by the dataset.json of the forecasts; by that of the segmenter where the former names none.

    :param cases: of the acquired scans.
    :raises ConfigurationError: there are label maps, but no structure in them has the name of one of the segmenter.
    """
    of_raw = [folder for folder in job.references if folder.name in IMAGE_FOLDERS]
    next_to_them = [folder.with_name(f"labels{folder.name[-2:]}") for folder in of_raw]
    folders = [*job.references, *next_to_them, *dataset_folders(job.raw, LABEL_FOLDERS)]
    paths = {case: path for case in cases if (path := _label_of(case, folders, job))}
    own_names = bool(structures(job.description.labels))
    named = Structures.of(job.description if own_names else segmenter.models.description)
    if paths and not set(named.values) & set(segmenter.structures):
        raise ConfigurationError(
            f"{first_few(map(str, paths.values()), most=1)} cannot be the reference of the segmented forecasts: the "
            f"structures of {job.raw.name} are {', '.join(named.values)}, those of "
            f"{segmenter.models.selection.dataset.name} are {', '.join(segmenter.structures)}. Expected: one name "
            "at least in 'labels' of both dataset.json. Name them alike, or choose another --segmenter."
        )
    return LabelsOfDataset(named, paths)


def _label_of(case: str, folders: Sequence[Path], job: EvaluationJob) -> Path | None:
    """The label map of a case; one with a sidecar was predicted, not drawn."""
    for folder in folders:
        path = label_path(folder, case, job.description)
        if path.is_file() and not sidecar_path(folder, case).is_file():
            return path
    return None


def segment_scans(
    job: EvaluationJob,
    segmenter: Segmenter,
    pairs: Sequence[ForecastPrediction],
    rung: str,
    step: float,
    progress: Progress = lambda *_: None,
) -> None:
    """Segment the forecasts, the acquired scans, the last context scans (LCI) and a rung; finished ones are kept.

    :param rung: the best rung of the ladder.
    :param step: of ``motion``.
    :raises DataError: a scan cannot be segmented; each is named.
    """
    forecasts = [SegmentationRequest(_target(pair, pair.images)) for pair in pairs]
    of_rung = [RungRequest(_target(pair, pair.context_images[-1]), pair, rung, step) for pair in pairs]
    work = [(FORECAST, segmenter, forecasts), (ACQUIRED, segmenter, acquired_scans(job, pairs))]
    if rung != LCI:  # which is an acquired scan
        work.append((rung, RungSegmenter(segmenter.models), of_rung))
    for kind, predictor, items in work:
        write_label_maps(predictor, items, job.predictions / SEGMENTED / kind, job.description, progress)


def _target(pair: ForecastPrediction, images: Files) -> Scan:
    return Scan(pair.case, pair.subject, pair.target_time, images)


def acquired_scans(job: EvaluationJob, pairs: Sequence[ForecastPrediction]) -> list[SegmentationRequest]:
    """List the scans at the target times and the last context scans, each once.

    :raises DataError: two of them have one case.
    """
    scans: dict[str, Scan] = {}
    for pair in pairs:
        last = pair.context_images[-1], max(pair.context_times)
        for files, time in ((pair.reference, pair.target_time), last):
            scan = Scan(case_of(files, job.description), pair.subject, time, files)
            if scans.setdefault(scan.case, scan).images != files:
                raise DataError(
                    f"{files[0]} and {scans[scan.case].images[0]} are two scans of one case. Expected: each acquired "
                    "scan once. Remove one of the folders from -r."
                )
    return [SegmentationRequest(scan) for scan in scans.values()]


def segmented_path(job: EvaluationJob, kind: str, case: str) -> Path:
    """Return the path of a label map that :func:`segment_scans` wrote.

    :param kind: "forecast", "acquired" or the name of a rung.
    """
    return label_path(job.predictions / SEGMENTED / kind, case, job.description)
