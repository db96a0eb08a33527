"""Begin a fold: settings that it keeps, first weights, the subjects whose labels it may use."""

import logging
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from longflow.errors import ConfigurationError, NotFoundError, first_few
from longflow.files import write_json
from longflow.job import FoldJob
from longflow.methods.method import Method
from longflow.methods.registry import known_methods, method_class, network_of, samples_of
from longflow.methods.transfer import Transfer, check_same_task, load_pretrained
from longflow.methods.weights import check_identity, read_checkpoint
from longflow.plans import write_plans
from longflow.reading import read_json
from longflow.training.checkpoints import load_state, restart_average
from longflow.training.labelled_subjects import choose_labelled
from longflow.training.run import Run
from longflow.training.splits import Cohort

logger = logging.getLogger(__name__)

#: settings that a fold is begun with and keeps
KEPT_SETTINGS = ("seed", "options", "pretrained", "labelled_subjects")


@dataclass(frozen=True)
class Start:
    """How a fold begins.

    :param training: the subjects to train on, with those whose labels may be used.
    :param resumes: whether the training of an earlier command is continued.
    :param pretrained: file of the first weights; None: random weights, or those of the earlier command.
    """

    training: Cohort
    resumes: bool
    pretrained: Path | None


def is_finished(job: FoldJob) -> bool:
    """Tell whether a fold is trained to its end, and log it.

    :param job: the fold.
    :returns: True for a finished fold.
    :raises ConfigurationError: the fold was begun with other settings.
    """
    if job.paths.run.is_file():
        check_same_settings(job)
    if not job.paths.final.is_file():
        return False
    name, final = job.model.folder.name, job.paths.final
    logger.info("Fold %d of %s is finished (%s). Train it again with --overwrite.", job.fold, name, final)
    return True


def check_same_settings(job: FoldJob) -> None:
    """Refuse to continue a fold that was begun with another seed, other labels, options or first weights.

    :param job: the fold.
    :raises ConfigurationError: a setting differs; it is named.
    """
    record, given = read_json(job.paths.run), asdict(job.settings)
    begun = record.get("settings", {}) if isinstance(record, dict) else None
    if not isinstance(begun, dict):
        raise ConfigurationError(f"{job.paths.run} is no record of a training. Train from scratch with --overwrite.")
    for name in KEPT_SETTINGS:
        if begun.get(name, given[name]) != given[name]:
            raise ConfigurationError(
                f"{job.paths.folder} was begun with {name} = {begun[name]}, this command has {given[name]}. Give the "
                "same flags to continue, train it from scratch with --overwrite, or keep both by setting "
                "longflow_results to another folder."
            )


def plan_start(job: FoldJob, kind: type[Method], training: Cohort, overwrite: bool) -> Start:
    """Decide how a fold begins; nothing is written.

    :param job: the fold.
    :param kind: class of the method.
    :param training: the subjects to train on.
    :param overwrite: train from scratch.
    :returns: the decision.
    :raises LongflowError: the first weights or the labelled subjects that the settings name cannot be used.
    """
    resumes = job.paths.latest.is_file() and not overwrite
    pretrained = pretrained_file(job) if job.settings.pretrained and not resumes else None
    return Start(_with_labelled_subjects(job, kind, training, resumes), resumes, pretrained)


def begin(run: Run, start: Start) -> dict[str, Any] | None:
    """Load the state of the earlier command, or pretrained weights.

    :param run: changed in place.
    :param start: how the fold begins.
    :returns: for pretrained weights, the record of :func:`load_first_weights`.
    """
    if start.resumes:
        load_state(run)
        logger.info("Continuing from iteration %d (%s).", run.state.iteration, run.job.paths.latest)
        _warn_of_other_batch(run)
    return load_first_weights(run, start.pretrained) if start.pretrained else None


def batch_of(run: Run) -> dict[str, int]:
    """Return the number of processes, and of samples in a step: of each process, and of all."""
    each, count = run.job.plan.batch_size, run.processes.count
    return {"processes": count, "batch_size": each, "global_batch_size": each * count}


def of_several_processes(run: Run) -> str:
    """Say what several processes change: samples of a step, but neither the learning rate nor the number of steps."""
    batch = batch_of(run)
    return (
        f"{batch['processes']} processes with {batch['batch_size']} samples each: {batch['global_batch_size']} "
        f"samples a step. The learning rate ({run.learning_rate:g}) and the number of steps stay as planned; --lr, "
        "--epochs and --iterations change them."
    )


def _warn_of_other_batch(run: Run) -> None:
    """Warn where the fold was begun by another number of processes: the samples of a step are others from here on."""
    begun = read_json(run.job.paths.run, dict).get("processes", 1) if run.job.paths.run.is_file() else 1
    if begun != run.processes.count and run.processes.first:
        logger.warning(
            "%s was begun by %s processes and is continued by %d: %d samples a step from here on. No sample is drawn "
            "twice.",
            *(run.job.paths.folder, begun, run.processes.count, batch_of(run)["global_batch_size"]),
        )


def load_first_weights(run: Run, file: Path) -> dict[str, Any]:
    """Put pretrained weights into a run.

    :param run: changed in place.
    :param file: of a checkpoint.
    :returns: for pretrained.json: the file, names of the loaded tensors, names of the skipped ones with the reason.
    """
    transfer = load_pretrained(run.method, file)
    restart_average(run)
    if run.processes.first:
        counts = len(transfer.loaded), len(transfer.skipped), 100 * transfer.share
        logger.info(
            "Pretrained weights of %s: %d tensors loaded, %d skipped. %.1f %% of all numbers are pretrained.%s",
            *(file, *counts, _from_scratch(transfer)),
        )
        for name in transfer.loaded:
            logger.debug("loaded: %s", name)
        for name, why in transfer.skipped:
            logger.debug("skipped: %s (%s)", name, why)
    return {"file": str(file), "loaded": transfer.loaded, "skipped": transfer.skipped}


def _from_scratch(transfer: Transfer) -> str:
    """Name the first tensors that were skipped, as a sentence; empty where there are none."""
    skipped = first_few((f"{name} ({why})" for name, why in transfer.skipped), most=3)
    return f" Skipped: {skipped}." if skipped else ""


def record_start(run: Run, start: Start, first_weights: dict[str, Any] | None) -> None:
    """Write plans, dataset.json, settings and choices into the folder of the fold.

    :param run: that begins.
    :param start: how it begins.
    :param first_weights: record of the pretrained weights; None where there are none.
    """
    job = run.job
    write_plans(job.plans, job.model.plans)
    write_json(read_json(job.dataset.raw / "dataset.json"), job.model.dataset_json)
    content = {"settings": asdict(job.settings), **run.header, **batch_of(run), "torch": torch.__version__}
    write_json(content, job.paths.run)
    if start.training.labelled is not None:
        write_json(sorted(start.training.labelled), job.paths.labelled_subjects)
    if first_weights:
        write_json(first_weights, job.paths.pretrained)


def pretrained_file(job: FoldJob) -> Path:
    """Find the weights that ``--pretrained`` names: a file, or a method whose same fold is finished.

    Another fold has seen the subjects that validate this one.

    :param job: the fold to train.
    :returns: the file.
    :raises NotFoundError: there is neither such a file nor such a method.
    :raises ConfigurationError: they are the fold's own, or the method is for another task.
    :raises ModelError: the plans were changed since the method was trained.
    """
    name = job.settings.pretrained
    if (file := Path(name)).is_file():
        _warn_of_other_fold(file.resolve(), job)
        return _not_its_own(file, job)
    if network_of(name)[0] not in known_methods():
        raise NotFoundError(
            f"'{name}' is neither a file nor a method. --pretrained takes the name of a method trained on this dataset "
            "(spatiotemporal, cronos, ...) or the file of a checkpoint (longflow's, nnU-Net's, nnssl's)."
        )
    check_same_task(name, method_class(job.method))
    source = replace(job, method=name)
    if not source.paths.final.is_file():
        raise NotFoundError(
            f"Fold {job.fold} of {source.model.folder.name} is not trained to its end; finished are: "
            f"{', '.join(map(str, source.model.finished_folds())) or 'none'}. Run first: longflow_train "
            f"{job.dataset.id} {job.configuration} {job.fold} -m {name}"
        )
    file = _not_its_own(source.paths.final, job)
    check_identity(read_checkpoint(file).header, file, name, job.plans, job.configuration)
    return file


def _not_its_own(file: Path, job: FoldJob) -> Path:
    if file.resolve().parent == job.paths.folder.resolve():
        raise ConfigurationError(
            f"--pretrained {file}: these are the weights of the fold that is to be trained from scratch, and would be "
            "overwritten. Copy them to another folder and give the copy."
        )
    return file


def _warn_of_other_fold(file: Path, job: FoldJob) -> None:
    """Warn of a file of another fold of this dataset: it was trained on subjects that validate here."""
    other = re.fullmatch(r"fold_(\d+)", file.parent.name)
    if other and int(other[1]) != job.fold and file.is_relative_to(job.dataset.results.resolve()):
        logger.warning(
            "%s was trained on subjects that validate fold %d: validation will be too optimistic. Use the weights of "
            "fold %d; with the method's name, --pretrained finds them.",
            *(file, job.fold, job.fold),
        )


def _with_labelled_subjects(job: FoldJob, kind: type[Method], training: Cohort, resumes: bool) -> Cohort:
    """Restrict the labels to the chosen subjects; they are chosen once and stored.

    :raises ConfigurationError: the method uses no labels.
    """
    value = job.settings.labelled_subjects
    if value is None:
        return training
    if not getattr(samples_of(kind), "labelled", False):
        raise ConfigurationError(
            f"--labelled_subjects {value}: the method '{job.method}' does not learn from labels. Remove the flag; it "
            "is for methods of segmentation, such as unet."
        )
    if resumes and job.paths.labelled_subjects.is_file():
        chosen = read_json(job.paths.labelled_subjects)
        if not isinstance(chosen, list) or not all(isinstance(name, str) for name in chosen):
            raise ConfigurationError(f"{job.paths.labelled_subjects} is no list of subjects. Train with --overwrite.")
    else:
        chosen = choose_labelled(value, training, job.settings.seed)
    return replace(training, labelled=frozenset(chosen))
