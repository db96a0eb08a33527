"""Label maps of scans that another task predicted, and of the acquired scans, by one trained model.

They are predictions of that model like any other: each has its sidecar with digests, finished ones are kept.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from longflow.data.dataset import DatasetDescription, stem_of
from longflow.errors import ConfigurationError
from longflow.evaluation.references import Files
from longflow.files import exclusive_lock
from longflow.inference.models import PredictionSettings
from longflow.inference.predictor import predict_missing
from longflow.inference.selection import Selection
from longflow.parallel import Progress
from longflow.paths import lock_in
from longflow.reading import read_json
from longflow.tasks.segment.predictor import Segmenter
from longflow.tasks.segment.requests import SegmentationRequest

#: folder of the label maps in the folder of predictions; in it one folder each for predicted and acquired scans
SEGMENTED = "segmented"


def checked_segmenter(selection: Selection, device: str | None, channels: Sequence[str], scans: str) -> Segmenter:
    """Load a model that segments, and check that it can segment scans that another model predicted.

    :param selection: the model.
    :param device: that it computes on; None: a GPU where there is one.
    :param channels: names of the channels of these scans.
    :param scans: what they are, for the message, as "the forecasts of Dataset101_MyStudy".
    :raises ConfigurationError: the model is for another task, or takes other channels than the scans have.
    :raises LongflowError: it cannot be loaded.
    """
    segmenter = Segmenter.of(selection, PredictionSettings(device))
    check_channels(segmenter, channels, scans)
    return segmenter


def check_channels(segmenter: Segmenter, channels: Sequence[str], scans: str) -> None:
    """Check that a model segments scans with these channels; arguments as of :func:`checked_segmenter`.

    :raises ConfigurationError: it takes others.
    """
    takes = segmenter.models.plans.channel_names
    if takes != list(channels):
        raise ConfigurationError(
            f"{segmenter.models.members[0].member.model.folder.name} of {segmenter.models.selection.dataset.name} "
            f"segments scans of {_channels(takes)}, but {scans} have {_channels(channels)}. "
            "Expected: the same names in the same order (channel_names in dataset.json). Choose another model."
        )


def _channels(names: Sequence[str]) -> str:
    return f"{len(names)} channel{'' if len(names) == 1 else 's'} ({', '.join(names)})"


def trained_on(segmenter: Segmenter, subjects: Sequence[str]) -> list[str]:
    """List the subjects that one of the segmenter's folds was trained on, sorted; none where no splits are stored."""
    path = segmenter.models.selection.dataset.splits
    splits = read_json(path) if path.is_file() else []
    seen: set[str] = set()
    for member in segmenter.models.members:
        for fold in member.member.folds:
            try:
                seen.update(splits[fold]["train"] if splits else [])
            except (IndexError, KeyError, TypeError) as error:
                raise ConfigurationError(f"{path} does not name the training subjects of fold {fold}.") from error
    return sorted(seen & set(subjects))


def case_of(files: Files, description: DatasetDescription) -> str:
    """Return the case of a scan."""
    return stem_of(files[0], f"_0000{description.file_ending}")


def write_label_maps(
    segmenter: Segmenter,
    items: Sequence[SegmentationRequest],
    folder: Path,
    description: DatasetDescription,
    progress: Progress = lambda *_: None,
) -> None:
    """Write the label maps of scans into a folder; finished ones are kept.

    :param description: of the dataset of the scans, whose time unit and file ending the label maps have.
    :raises DataError: a scan cannot be segmented; each is named.
    """
    unit_and_files = {name: getattr(description, name) for name in ("time_unit", "file_ending")}
    own = segmenter.models.description.model_copy(update=unit_and_files)
    requests = [replace(item, keep_largest=segmenter.keep_largest) for item in items]
    with exclusive_lock(lock_in(folder), f"{folder} is being written"):
        predict_missing(segmenter, requests, folder, own, progress=progress)
