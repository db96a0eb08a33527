"""What a fold begins with: settings that it keeps, pretrained weights, the subjects whose labels it may use."""

import logging
import re
from dataclasses import asdict, replace
from pathlib import Path

from longflow.errors import ConfigurationError, NotFoundError
from longflow.files import read_json
from longflow.methods.method import Method
from longflow.methods.registry import known_methods, network_of, samples_of
from longflow.methods.transfer import load_pretrained
from longflow.methods.weights import check_identity, read_checkpoint
from longflow.paths import DatasetPaths, FoldPaths, ModelPaths
from longflow.plans import read_plans
from longflow.tasks.segment.labelled_subjects import choose_labelled
from longflow.training.run import Run, RunSettings, restart_average
from longflow.training.splits import Cohort

logger = logging.getLogger(__name__)

#: settings that a fold is begun with and keeps
KEPT_SETTINGS = ("seed", "options", "pretrained", "labelled_subjects")


def check_same_settings(paths: FoldPaths, settings: RunSettings) -> None:
    """Weights of a fold that was begun with another seed, other data, options or first weights were not asked for.

    :raises ConfigurationError: says which setting differs.
    """
    begun, wanted = read_json(paths.run).get("settings", {}), asdict(settings)
    for name in KEPT_SETTINGS:
        if begun.get(name, wanted[name]) != wanted[name]:
            raise ConfigurationError(
                f"{paths.folder} was begun with {name} = {begun[name]}, this command has {wanted[name]}. Give the same "
                "flags to go on, train it anew with --overwrite, or keep both by setting longflow_results to another "
                "folder."
            )


def pretrained_file(dataset: DatasetPaths, settings: RunSettings, model: ModelPaths, fold: int) -> Path:
    """The weights that ``--pretrained`` means: a file, or a method whose same fold is finished.

    The same fold, because another one has seen the subjects that validate here.

    :raises NotFoundError: there is neither. :raises ConfigurationError: they are the fold's own.
    :raises ModelError: the plans were changed since the method was trained.
    """
    if (file := Path(settings.pretrained)).is_file():
        _warn_of_other_fold(file.resolve(), dataset, fold)
        return _not_its_own(file, model, fold)
    if network_of(settings.pretrained)[0] not in known_methods():
        raise NotFoundError(
            f"'{settings.pretrained}' is neither a file nor a method. --pretrained takes the name of a method trained "
            "on this dataset (spatiotemporal, ...) or the file of a checkpoint (longflow's, nnU-Net's, nnssl's)."
        )
    source = dataset.model(settings.pretrained, model.plans_name, model.configuration)
    if not source.fold(fold).final.is_file():
        raise NotFoundError(
            f"Fold {fold} of {source.folder.name} is not trained to its end; finished are: "
            f"{', '.join(map(str, source.finished_folds())) or 'none'}. Run first: longflow_train {dataset.id} "
            f"{model.configuration} {fold} -m {settings.pretrained}"
        )
    file = _not_its_own(source.fold(fold).final, model, fold)
    plans = read_plans(dataset.plans(model.plans_name))
    check_identity(read_checkpoint(file).header, file, settings.pretrained, plans, model.configuration)
    return file


def _not_its_own(file: Path, model: ModelPaths, fold: int) -> Path:
    if file.resolve().parent == model.fold(fold).folder.resolve():
        raise ConfigurationError(
            f"--pretrained {file}: these are the weights of the fold that is to be trained anew, and would be "
            "overwritten. Copy them to another folder and give the copy."
        )
    return file


def _warn_of_other_fold(file: Path, dataset: DatasetPaths, fold: int) -> None:
    """A file of another fold of this dataset was trained on subjects that validate here."""
    other = re.fullmatch(r"fold_(\d+)", file.parent.name)
    if other and int(other[1]) != fold and file.is_relative_to(dataset.results.resolve()):
        logger.warning(
            "%s was trained on subjects that validate fold %d: what validation finds will be too good. Take the "
            "weights of fold %d, which --pretrained does by itself if it is given the method's name.",
            *(file, fold, fold),
        )


def with_labelled_subjects(
    training: Cohort, kind: type[Method], paths: FoldPaths, settings: RunSettings, going_on: bool
) -> Cohort:
    """The training subjects, of whom only the chosen ones' labels may be used; chosen once and stored.

    :raises ConfigurationError: the method draws no labels.
    """
    if settings.labelled_subjects is None:
        return training
    if not getattr(samples_of(kind), "labelled", False):
        raise ConfigurationError(
            f"--labelled_subjects {settings.labelled_subjects}: the method '{ModelPaths(paths.folder.parent).method}' "
            "does not learn from labels. Leave the flag away; it is for methods of segmentation, such as unet."
        )
    if going_on and paths.labelled_subjects.is_file():
        chosen = read_json(paths.labelled_subjects)
    else:
        chosen = choose_labelled(settings.labelled_subjects, training, settings.seed)
    return replace(training, labelled=frozenset(chosen))


def begin_with(run: Run, file: Path) -> dict[str, object]:
    """Put pretrained weights into a run, and say which were used.

    :returns: the same, for the record of the run.
    """
    transfer = load_pretrained(run.method, file)
    restart_average(run)
    if run.processes.first:
        counts = len(transfer.loaded), len(transfer.skipped)
        logger.info("Pretrained weights of %s: %d tensors loaded, %d skipped.", file, *counts)
        for name in transfer.loaded:
            logger.debug("loaded: %s", name)
        for name, why in transfer.skipped:
            logger.debug("skipped: %s (%s)", name, why)
    return {"file": str(file), "loaded": transfer.loaded, "skipped": transfer.skipped}
