"""The interface of validations: how a method is scored during training and what is written at its end."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from longflow.files import file_digest
from longflow.inference.output import read_sidecar
from longflow.inference.requests import Request
from longflow.job import FoldJob
from longflow.methods.method import Method
from longflow.training.progress import ProgressColumns
from longflow.training.splits import Cohort

#: ``tile_step_size`` while training: adjacent patches without overlap, which is quick. The predictions at the end are
#: made as longflow_predict makes them
WITHOUT_OVERLAP = 1.0

#: voxels of a predicted volume that are kept to compare numbers of steps
SAMPLED_VOXELS, _SAMPLE_SEED = 100_000, 0


@dataclass(frozen=True)
class Score:
    """The result of a validation.

    :param value: by which weights are compared; lower is better.
    :param columns: of progress.csv.
    :param note: a few words for the progress bar and the log.
    :param baseline: the value of the unchanged input, where numbers of solver steps can be compared; else None.
    :param errors: (items, predictions of an item), on the scale of ``value``, in the order of the items.
    :param changes: of each of these predictions, a sample (:func:`sampled`) of what it changes in the input.
    :param reduction: of the method, whose score ``value`` is; None where a method makes one volume.
    """

    value: float
    columns: dict[str, float]
    note: str
    baseline: float | None = None
    errors: Sequence[Sequence[float]] = field(default=(), compare=False)
    changes: Sequence[np.ndarray] = field(default=(), compare=False)
    reduction: str | None = None


class Validation(Protocol):
    """The validation of a fold; made once per run, before training, so that missing data is an error then.

    :param job: the fold.
    :param cohort: the subjects that validate it.
    :param device: that the method works on.
    :cvar progress: how the progress figure shows its columns; without it, under their own names, lower being better.
    """

    progress: ClassVar[ProgressColumns]

    def __init__(self, job: FoldJob, cohort: Cohort, device: torch.device): ...

    def score(self, method: Method) -> Score:
        """Score a method on the same data every time.

        Work on the scans with :func:`longflow.training.clock.results_in_time`: a time budget can then shorten it, and
        the processes of a run share it. Without, each process works on all of them.

        :param method: in evaluation mode.
        :returns: its score.
        """

    def finish(self, method: Method) -> None:
        """Write the out-of-fold predictions of the finished method, as ``longflow_predict`` would write them.

        Work on them with :func:`longflow.training.clock.results_in_time`, as above. Where
        :func:`longflow.training.clock.writes_tables`, write what belongs to all of them.

        :param method: in evaluation mode, with the weights that are kept.
        """


def sampled(change: np.ndarray) -> np.ndarray:
    """Keep a few voxels of a volume, the same ones every time.

    :param change: any shape.
    :returns: (voxels,), all of a small volume.
    """
    flat = change.reshape(-1)
    if flat.size <= SAMPLED_VOXELS:
        return flat
    return flat[np.random.default_rng(_SAMPLE_SEED).integers(flat.size, size=SAMPLED_VOXELS)]


def out_of_fold_settings(job: FoldJob, method: Method) -> dict[str, Any]:
    """Return what every out-of-fold prediction of a fold depends on, for its sidecar.

    :param job: the fold.
    :param method: that predicts.
    :returns: the keys that ``longflow_predict`` writes for every task.
    """
    return {"time_unit": job.plans.temporal.time_unit, **job.provenance(), "mirror": method.mirrors}


def out_of_fold_digests(job: FoldJob, images: Iterable[Path]) -> dict[str, Any]:
    """Return the digests of what an out-of-fold prediction is made from, as those of ``longflow_predict``.

    :param job: the fold; its best weights become its final ones.
    :param images: that the prediction is made from.
    """
    plans, weights = ([file_digest(path)] if path.is_file() else [] for path in (job.model.plans, job.paths.best))
    return {"inputs": {path.name: file_digest(path) for path in images}, "plans": plans, "weights": [weights]}


def finished_before(
    item: Request, folder: Path, files: Iterable[Path], expected: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Read the sidecar of an out-of-fold prediction that a stopped command has finished.

    :param item: the request.
    :param folder: of the predictions.
    :param files: that belong to it.
    :param expected: fields that it depends on; ``digests`` among them.
    :returns: the sidecar; None where the prediction is missing, or was made of something else.
    """
    made = read_sidecar(item, folder)
    same = all(made.get(name) == value for name, value in json.loads(json.dumps(expected)).items())
    return made if made and same and all(path.is_file() for path in files) else None
