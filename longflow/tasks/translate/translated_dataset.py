"""A labelled dataset in the phase that one lacks: images translated, labels copied (MFM section 4.5).

What is written is a raw dataset of longflow, task ``segment``, and of nnU-Net in one: imagesTr, labelsTr, dataset.json,
scans.csv; the sidecar of every translation stands beside its images.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longflow import __version__
from longflow.data.dataset import (
    DatasetDescription,
    Scan,
    read_rows,
    training_series,
    write_description,
    write_scans,
)
from longflow.data.images import read_geometry, read_label
from longflow.errors import ConfigurationError, DataError, LongflowError, first_few, unknown_name
from longflow.files import atomic_write, read_json, write_json
from longflow.importers.writing import put_in_place
from longflow.inference.models import Models
from longflow.inference.predictor import INTENDED_USE, is_finished, make_item
from longflow.parallel import Progress
from longflow.paths import DatasetPaths
from longflow.tasks.translate.predictor import CAUTION, Translator
from longflow.tasks.translate.requests import TranslationRequest

#: what was translated and by what; a folder that has it was written here
RECORD = "translations.json"


@dataclass(frozen=True)
class TranslatedDataset:
    """What was written.

    :param translations: in order of subject and time.
    :param trained_on: cases of those that none but folds trained on their subject could translate.
    :param unlabelled: scans of the other phase that were left out, having no label.
    :param written: False where everything was there already.
    """

    folder: Path
    translations: list[TranslationRequest]
    trained_on: list[str]
    unlabelled: int
    written: bool


def translate_dataset(
    translator: Translator,
    phase: str,
    output: Path,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> TranslatedDataset:
    """Translate the labelled training scans of the model's dataset that are in the other phase.

    A scan is translated by the folds that were not trained on its subject; where there is none, by all of them, which
    its sidecar says (``trained_on``). The folder is written under a hidden name beside its own, which it gets when it
    is complete; what was stopped is continued there.

    :param phase: wanted. :param output: folder of the new dataset.
    :param overwrite: replace a dataset there that this function wrote.
    :raises NotFoundError: the model does not know the phase.
    :raises DataError: there is no label to copy, or a scan cannot be used (the others are done).
    :raises ConfigurationError: the output is another folder's, or was made with other settings.
    """
    models = translator.models
    if phase not in models.plans.phases:
        raise unknown_name("phase", phase, models.plans.phases, hint="(--to, the phases that the model knows.)")
    dataset = models.selection.dataset
    description, all_series = training_series(dataset.raw)
    scans = [scan for series in all_series for scan in series.with_images().scans]
    sources = [scan for scan in scans if scan.phase in models.plans.phases and scan.phase != phase]
    items = [TranslationRequest.of(scan, phase) for scan in sources if scan.label]
    _check_labels(dataset, description, scans, items, phase)
    trained = trained_subjects(models)
    translators = [unseen_by(translator, item.source.subject, trained) for item in items]
    knew = [
        item.target.case
        for item, one in zip(items, translators, strict=True)
        if any(item.source.subject in trained[fold] for member in one.models.members for fold in member.member.folds)
    ]
    result = TranslatedDataset(output, items, knew, len(sources) - len(items), written=True)

    record = {
        "settings": {"phase": phase, **translator.settings()},
        "translations": [item.provenance() for item in items],
        "intended_use": f"{INTENDED_USE}; {CAUTION}",
        "longflow_version": __version__,
    }
    if _is_there(output, record, overwrite):
        return replace(result, written=False)
    unfinished = output.with_name(f".unfinished-translate-{output.name}")
    if unfinished.exists() and not _same_record(unfinished, record):
        shutil.rmtree(unfinished)
    write_json(record, unfinished / RECORD)
    failures = []
    for number, (item, one) in enumerate(zip(items, translators, strict=True)):
        progress(number, len(items), item.target.case)
        try:
            _translate(one, item, unfinished, description, item.target.case in knew)
        except LongflowError as error:
            failures.append(f"  {item.target.case}: {error}")
    progress(len(items), len(items), "")
    if failures:
        raise DataError(
            f"{len(failures)} of {len(items)} scans could not be translated, so {output} is not written. The others "
            "are kept: run the same command again when these are mended.\n" + "\n".join(failures)
        )
    write_scans([item.target for item in items], unfinished / "scans.csv")
    write_description(_description(description, dataset, items), unfinished / "dataset.json", numTraining=len(items))
    put_in_place(unfinished, output)
    return result


def trained_subjects(models: Models) -> dict[int, set[str]]:
    """Whom each fold of the models was trained on, by the splits of their dataset.

    :raises DataError: there are no splits. :raises ConfigurationError: they are not those of the training.
    """
    splits = models.selection.dataset.splits
    if not splits.is_file():
        raise DataError(
            f"{splits} does not exist. It says whom each fold was trained on, and so which fold may translate which "
            "scan. Put it back from where the model was trained."
        )
    trained: dict[int, set[str]] = {}
    for member in models.members:
        for fold in member.member.folds:
            try:
                trained[fold] = set(read_json(splits)[fold]["train"])
            except (IndexError, KeyError, TypeError) as error:
                raise ConfigurationError(f"{splits} does not say whom fold {fold} was trained on.") from error
            table = member.member.model.fold(fold).validation(member.methods[0].reductions[0]) / "scans.csv"
            validated = {row.subject for row in read_rows(table)} if table.is_file() else set()
            if changed := sorted(validated & trained[fold]):
                raise ConfigurationError(
                    f"{splits} says that fold {fold} of {member.member.model.folder.name} was trained on "
                    f"{first_few(changed)}, but by {table} that validated it: the splits were changed after the "
                    f"training. "
                    "Put back the splits that the model was trained with."
                )
    return trained


def unseen_by(translator: Translator, subject: str, trained: dict[int, set[str]]) -> Translator:
    """The translator with the folds that were not trained on a subject; a model without such a fold keeps all."""
    return Translator(translator.models.of_folds([fold for fold in trained if subject not in trained[fold]]))


def _check_labels(
    dataset: DatasetPaths,
    description: DatasetDescription,
    scans: Sequence[Scan],
    items: Sequence[TranslationRequest],
    phase: str,
) -> None:
    """There is something to copy.

    :raises DataError: no label at all, none in the phase that is translated, or labels without names.
    """
    advice = f"To translate scans without labels: longflow_predict -i IN -o OUT -d {dataset.id} --to {phase}"
    if not any(scan.label for scan in scans):
        raise DataError(
            f"{dataset.name} has no labels: {dataset.raw / 'labelsTr'} holds none for a scan of its table. Expected "
            f"{{case}}{description.file_ending} for the scans that are to be translated. {advice}"
        )
    if not description.labels:
        raise DataError(
            f"{dataset.raw / 'dataset.json'} has no 'labels', but labelsTr has images. Name them, as "
            '"labels": {"background": 0, "aorta": 1}.'
        )
    if not items:
        raise DataError(
            f"No scan of {dataset.name} with a label is to be translated: the labelled ones are in the phase '{phase}' "
            f"already. {advice}"
        )


def _is_there(output: Path, record: dict[str, Any], overwrite: bool) -> bool:
    """Whether the same was written before.

    :raises ConfigurationError: something else is there that is not to be replaced.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if not (output / RECORD).is_file():
        raise ConfigurationError(
            f"{output} was not written by longflow_translate_dataset (it has no {RECORD}) and is never replaced. Give "
            "another name or folder with -o."
        )
    if overwrite:
        return False
    if not _same_record(output, record):
        raise ConfigurationError(
            f"{output} was made of other scans or with other settings ({RECORD} says which). Give another name or "
            "folder with -o, or replace it with --overwrite."
        )
    return True


def _same_record(folder: Path, record: dict[str, Any]) -> bool:
    try:
        found = read_json(folder / RECORD)
        return all(found[key] == record[key] for key in ("settings", "translations"))
    except (DataError, KeyError, TypeError):
        return False


def _translate(
    translator: Translator, item: TranslationRequest, folder: Path, description: DatasetDescription, trained_on: bool
) -> None:
    """Copy the label and write the translation, unless both are there."""
    images, label = folder / "imagesTr", folder / "labelsTr" / f"{item.target.case}{description.file_ending}"
    if label.is_file() and is_finished(translator, item, images, description):
        return
    source = item.source
    read_label(source.label, source.images[0], read_geometry(source.images[0]))  # lies on the grid, holds whole numbers
    with atomic_write(label) as temporary:
        shutil.copyfile(source.label, temporary)
    make_item(translator, item, images, description, trained_on=trained_on, label=source.label.name)


def _description(
    source: DatasetDescription, dataset: DatasetPaths, items: Sequence[TranslationRequest]
) -> DatasetDescription:
    """What both longflow and nnU-Net need to know, and where the images come from."""
    drawn, wanted = items[0].source.phase, items[0].target.phase
    return DatasetDescription(
        channel_names=source.channel_names,
        file_ending=source.file_ending,
        time_unit=source.time_unit,
        labels=source.labels,
        regions_class_order=source.regions_class_order,
        normalization=source.normalization,
        task="segment",
        description=f"Images of {dataset.name} translated by longflow from the phase '{drawn}' to '{wanted}', with the "
        f"labels that were drawn there. For {INTENDED_USE}; {CAUTION}.",
    )
