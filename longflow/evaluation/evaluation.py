"""What every evaluation of a folder of predictions starts from and ends with."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longflow.data.dataset import DatasetDescription
from longflow.errors import first_few
from longflow.evaluation.references import subjects_of_training
from longflow.task import Words

if TYPE_CHECKING:
    from rich.console import Console

    from longflow.inference.selection import Selection

logger = logging.getLogger(__name__)

FIGURES = "figures"


@dataclass(frozen=True)
class EvaluationJob:
    """A folder of predictions and what it is compared with.

    :param predictions: folder that longflow_predict wrote; results are written into it.
    :param references: folders of the user, searched before those of the dataset.
    :param raw: folder of the raw dataset.
    :param processes: worker processes; None: one for each core, as far as memory allows.
    :param segmenter: model of the task ``segment`` that predicted and acquired scans are segmented by, for a task that
        ``evaluates_structures``; None: nothing is segmented.
    :param device: that it computes on; None: a GPU where there is one.
    """

    predictions: Path
    references: tuple[Path, ...]
    raw: Path
    description: DatasetDescription
    processes: int | None = None
    segmenter: "Selection | None" = None
    device: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    :param results: content of metrics.json.
    :param written: names of the files in the folder of predictions.
    :param show: prints the tables on a console.
    """

    results: dict[str, Any]
    written: tuple[str, ...]
    show: Callable[["Console"], None]


def check_predictions(
    job: EvaluationJob, words: Words, subjects: Collection[str], cases: Collection[str], without: Sequence[str]
) -> dict[str, list[str]]:
    """Warn of predictions without a reference, and of subjects that the model may have been trained on.

    :param subjects: of the predictions that are evaluated.
    :param cases: of the predictions that are evaluated.
    :param without: cases of predictions without a reference.
    :returns: both lists, for metrics.json.
    """
    if without:
        logger.warning(
            "%d of %d %s have no reference and are not evaluated: %s",
            *(len(without), len(without) + len(cases), words.several, first_few(without)),
        )
    seen = sorted(set(subjects) & subjects_of_training([*job.references, job.raw / "imagesTr"]))
    if seen:
        logger.warning(
            "%d of the subjects are in imagesTr (%s): the model may have been trained or chosen on them. Unless "
            "these are predictions of folds that were not trained on them, the numbers say nothing about new subjects.",
            *(len(seen), first_few(seen)),
        )
    return {"without_truth": list(without), "subjects_of_training": seen}
