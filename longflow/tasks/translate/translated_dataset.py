"""Write a labelled dataset in the phase that it lacks: images translated, labels copied (MFM section 4.5).

The result is a raw dataset for longflow, task ``segment``, and for nnU-Net: imagesTr, labelsTr, dataset.json and
scans.csv. The sidecar of each translation is next to its images.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longflow.data.dataset import (
    DatasetDescription,
    Scan,
    label_path,
    read_rows,
    training_series,
    write_description,
    write_scans,
)
from longflow.data.images import read_geometry, read_label
from longflow.errors import ConfigurationError, DataError, LongflowError, first_few, unknown_name
from longflow.files import atomic_write, exclusive_lock, file_digest, write_json
from longflow.importers.writing import put_in_place
from longflow.inference.finished import is_predicted
from longflow.inference.models import Models
from longflow.inference.output import INTENDED_USE
from longflow.inference.predictor import make_item
from longflow.parallel import Progress
from longflow.paths import DatasetPaths, lock_beside
from longflow.reading import read_json
from longflow.tasks.translate.predictor import CAUTION, Translator
from longflow.tasks.translate.requests import TranslationRequest
from longflow.version import __version__

#: says what was translated and by which model; only folders that have it are replaced
TRANSLATIONS_JSON = "translations.json"


@dataclass(frozen=True)
class LabelledTranslation:
    """A labelled scan to translate.

    :param translator: the folds that were not trained on its subject, or all where there are none.
    :param trained_on: whether the folds were trained on its subject.
    """

    request: TranslationRequest
    translator: Translator
    trained_on: bool


@dataclass(frozen=True)
class TranslatedDataset:
    """A translated dataset.

    :param translations: in order of subject and time.
    :param trained_on: cases that only folds trained on their subject could translate.
    :param unlabelled: number of scans in the other phase that were excluded, having no label.
    :param written: False where the same was written before.
    """

    folder: Path
    translations: list[TranslationRequest]
    trained_on: list[str]
    unlabelled: int
    written: bool


def write_translated_dataset(
    translator: Translator,
    phase: str,
    output: Path,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> TranslatedDataset:
    """Translate the labelled training scans of the model's dataset that are in the other phase.

    A scan is translated by the folds that were not trained on its subject. Where there are none, all folds translate
    it, and its sidecar says so (``trained_on``). The folder is written under a hidden name next to its own name, which
    it gets when it is complete. A stopped command is continued there.

    :param translator: the trained model.
    :param phase: requested phase.
    :param output: folder of the new dataset.
    :param overwrite: replace a dataset there that this function wrote.
    :param progress: called with (finished, all, case) as translations are made.
    :returns: what was written.
    :raises NotFoundError: the model does not know the phase.
    :raises DataError: there is no label to copy, or a scan cannot be used (the others are done).
    :raises ConfigurationError: the output folder was not written here, or was made with other settings.
    :raises InUseError: another process writes the output folder.
    """
    with exclusive_lock(lock_beside(output), f"{output} is being written"):
        return _translate_dataset(translator, phase, output, overwrite, progress)


def _translate_dataset(
    translator: Translator, phase: str, output: Path, overwrite: bool, progress: Progress
) -> TranslatedDataset:
    """Translate while the lock of the output folder is held."""
    work, description, unlabelled = _work(translator, phase)
    requests = [one.request for one in work]
    record = {
        "settings": {"phase": phase, **translator.settings()},
        "translations": [request.provenance() for request in requests],
        "digests": {**translator.models.digests(), "inputs": _digests(requests)},
        "intended_use": f"{INTENDED_USE}; {CAUTION}",
        "longflow_version": __version__,
    }
    written = not _exists(output, record, overwrite)
    if written:
        dataset = translator.models.selection.dataset
        unfinished = output.with_name(f".unfinished-translate-{output.name}")
        if unfinished.exists() and not _same_record(unfinished, record):
            shutil.rmtree(unfinished)
        write_json(record, unfinished / TRANSLATIONS_JSON)
        _translate_all(work, unfinished, description, output, progress)
        write_scans([request.target for request in requests], unfinished / "scans.csv")
        described = _description(description, dataset, requests[0])
        write_description(described, unfinished / "dataset.json", numTraining=len(work))
        put_in_place(unfinished, output)
    trained_on = [one.request.target.case for one in work if one.trained_on]
    return TranslatedDataset(output, requests, trained_on, unlabelled, written)


def _work(translator: Translator, phase: str) -> tuple[list[LabelledTranslation], DatasetDescription, int]:
    """Find the labelled scans in the other phase, and the folds for each.

    :returns: the work, the dataset's description, and the number of scans in the other phase without a label.
    """
    models = translator.models
    if phase not in models.plans.phases:
        raise unknown_name("phase", phase, models.plans.phases, hint="(--to, the phases that the model knows.)")
    dataset = models.selection.dataset
    description, all_series = training_series(dataset.raw)
    scans = [scan for series in all_series for scan in series.with_images().scans]
    sources = [scan for scan in scans if scan.phase in models.plans.phases and scan.phase != phase]
    labelled = [scan for scan in sources if scan.label]
    _check_labels(dataset, description, scans, labelled, phase)
    trained = trained_subjects(models)
    work = []
    for scan in labelled:
        own = unseen_by(translator, scan.subject, trained)
        folds = [fold for member in own.models.members for fold in member.member.folds]
        trained_on = any(scan.subject in trained[fold] for fold in folds)
        work.append(LabelledTranslation(TranslationRequest.of(scan, phase), own, trained_on))
    return work, description, len(sources) - len(labelled)


def _digests(requests: Sequence[TranslationRequest]) -> dict[str, str]:
    """Return the digests of all images and labels that are read."""
    files = [path for request in requests for path in (*request.source.images, request.source.label)]
    return {f"{path.parent.name}/{path.name}": file_digest(path) for path in files}


def _translate_all(
    work: Sequence[LabelledTranslation],
    unfinished: Path,
    description: DatasetDescription,
    output: Path,
    progress: Progress,
) -> None:
    """Write all images and labels.

    :raises DataError: some scans cannot be used; the others are done.
    """
    failures = []
    for number, one in enumerate(work):
        case = one.request.target.case
        progress(number, len(work), case)
        try:
            _translate(one, unfinished, description)
        except LongflowError as error:
            failures.append(f"  {case}: {error}")
    progress(len(work), len(work), "")
    if failures:
        raise DataError(
            f"{len(failures)} of {len(work)} scans could not be translated, so {output} is not written. The others "
            "are kept. Correct these files, then run the same command again.\n" + "\n".join(failures)
        )


def trained_subjects(models: Models) -> dict[int, set[str]]:
    """Read the training subjects of each fold of the models from the splits of their dataset.

    :returns: fold to subjects.
    :raises DataError: there are no splits.
    :raises ConfigurationError: they are not the splits of the training.
    """
    splits = models.selection.dataset.splits
    if not splits.is_file():
        raise DataError(
            f"{splits} does not exist. It names the training subjects of each fold, and so the folds that may "
            "translate a scan. Copy it from the machine of the training."
        )
    trained: dict[int, set[str]] = {}
    for member in models.members:
        for fold in member.member.folds:
            try:
                trained[fold] = set(read_json(splits)[fold]["train"])
            except (IndexError, KeyError, TypeError) as error:
                raise ConfigurationError(f"{splits} does not name the training subjects of fold {fold}.") from error
            table = member.member.model.fold(fold).validation(member.methods[0].reductions[0]) / "scans.csv"
            validated = {row.subject for row in read_rows(table)} if table.is_file() else set()
            if changed := sorted(validated & trained[fold]):
                raise ConfigurationError(
                    f"{splits} says that fold {fold} of {member.member.model.folder.name} was trained on "
                    f"{first_few(changed)}, but by {table} that validated it: the splits were changed after the "
                    "training. Restore the splits of the training."
                )
    return trained


def unseen_by(translator: Translator, subject: str, trained: dict[int, set[str]]) -> Translator:
    """Return the translator with the folds not trained on a subject; a model without such a fold keeps all."""
    return Translator(translator.models.of_folds([fold for fold in trained if subject not in trained[fold]]))


def _check_labels(
    dataset: DatasetPaths,
    description: DatasetDescription,
    scans: Sequence[Scan],
    labelled: Sequence[Scan],
    phase: str,
) -> None:
    """Refuse a dataset without labels to copy.

    :param scans: all scans with images.
    :param labelled: the labelled scans in the other phase.
    :raises DataError: no label at all, none in the other phase, or labels without names.
    """
    advice = f"To translate scans without labels: longflow_predict -i IN -o OUT -d {dataset.id} --to {phase}"
    if not any(scan.label for scan in scans):
        raise DataError(
            f"{dataset.name} has no labels: {dataset.raw / 'labelsTr'} holds none for a scan of its table. Expected "
            f"{{case}}{description.file_ending} for the scans to translate. {advice}"
        )
    if not description.labels:
        raise DataError(
            f"{dataset.raw / 'dataset.json'} has no 'labels', but labelsTr has images. Name them, as "
            '"labels": {"background": 0, "aorta": 1}.'
        )
    if not labelled:
        raise DataError(
            f"{dataset.name} has no labelled scan to translate: the labelled ones are in the phase "
            f"'{phase}' already. {advice}"
        )


def _exists(output: Path, record: dict[str, Any], overwrite: bool) -> bool:
    """Return whether the same was written before.

    :raises ConfigurationError: the folder holds something else, which is not replaced.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if not (output / TRANSLATIONS_JSON).is_file():
        raise ConfigurationError(
            f"{output} was not written by longflow_translate_dataset (it has no {TRANSLATIONS_JSON}) and is never "
            "replaced. Give another name or folder with -o."
        )
    if overwrite:
        return False
    if not _same_record(output, record, "digests"):
        raise ConfigurationError(
            f"{output} was made of other scans or with other settings or weights (see {TRANSLATIONS_JSON}). Give "
            "another name or folder with -o, or replace it with --overwrite."
        )
    return True


def _same_record(folder: Path, record: dict[str, Any], *further: str) -> bool:
    """Compare the records; the scans of an unfinished dataset are compared one by one."""
    try:
        content = read_json(folder / TRANSLATIONS_JSON)
        return all(content[key] == record[key] for key in ("settings", "translations", *further))
    except (DataError, KeyError, TypeError):
        return False


def _translate(one: LabelledTranslation, folder: Path, description: DatasetDescription) -> None:
    """Copy the label and write the translation, unless both were made of the same files."""
    item, source = one.request, one.request.source
    images, label = folder / "imagesTr", label_path(folder / "labelsTr", item.target.case, description)
    same_label = label.is_file() and file_digest(label) == file_digest(source.label)
    if same_label and is_predicted(one.translator, item, images, description):
        return
    read_label(source.label, source.images[0], read_geometry(source.images[0]))  # is on the grid, holds whole numbers
    with atomic_write(label) as temporary:
        shutil.copyfile(source.label, temporary)
    make_item(one.translator, item, images, description, trained_on=one.trained_on, label=source.label.name)


def _description(source: DatasetDescription, dataset: DatasetPaths, one: TranslationRequest) -> DatasetDescription:
    """Return the dataset.json for both longflow and nnU-Net, with the origin of the images.

    :param source: of the dataset that is translated.
    :param one: any of its translations.
    """
    return DatasetDescription(
        channel_names=source.phase_channels.get(one.target.phase, source.channel_names),
        file_ending=source.file_ending,
        time_unit=source.time_unit,
        labels=source.labels,
        regions_class_order=source.regions_class_order,
        normalization=source.normalization,
        task="segment",
        description=f"Images of {dataset.name} translated by longflow from the phase '{one.source.phase}' to "
        f"'{one.target.phase}', with the labels that were drawn there. For {INTENDED_USE}; {CAUTION}.",
    )
