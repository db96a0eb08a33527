"""Predict a folder, for any task: make what it requests, and write it as a folder that is valid input again."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from longflow.data.dataset import (
    DatasetDescription,
    Scan,
    read_description,
)
from longflow.data.images import Volume, read_header
from longflow.distributed import ALONE, Processes
from longflow.errors import ConfigurationError, DataError, LongflowError, unknown_name
from longflow.files import exclusive_lock, wait_for_files
from longflow.fitness.verdict import UNKNOWN, Verdict
from longflow.inference.finished import check_output, check_settings, digests_of, is_unfit, unfinished_of
from longflow.inference.models import Models, PredictionSettings, load_models, task_of
from longflow.inference.output import sidecar_of, write_sidecar, write_table
from longflow.inference.pipeline import overlapped
from longflow.inference.requests import Request
from longflow.inference.selection import Selection, select
from longflow.integrity.prediction import scan_problems, verify_input
from longflow.integrity.problems import Problem
from longflow.parallel import Progress
from longflow.paths import lock_in
from longflow.plans import Plans
from longflow.task import Words, all_tasks, get_task

logger = logging.getLogger(__name__)

#: bytes of scans in float32. A prediction from more than that is made alone, when no other is read or written: reading
#: is a small part of its time, and the memory of several would add up
LARGE = 256 * 1024**2

OfTask = TypeVar("OfTask", bound="Predictor")
OfRequest = TypeVar("OfRequest", bound=Request)


class Predictor(ABC, Generic[OfRequest]):
    """Trained models of one task, ready to predict.

    :cvar task: name of the task of the models.
    """

    task: ClassVar[str]
    models: Models

    def __init__(self, models: Models):
        self.models = models

    # eight parameters: the public interface takes the flags of longflow_predict, each under its own name
    @classmethod
    def load(
        cls: type[OfTask],
        dataset: str | int | None = None,
        configuration: str | None = None,
        method: str | None = None,
        folds: Sequence[int] | None = None,
        device: str | None = None,
        solver: str | None = None,
        steps: int | None = None,
        mirror: bool | None = None,
    ) -> OfTask:
        """Load a trained model. Parameters that are not given are found as ``longflow_predict`` finds them.

        :param dataset: 101 or "Dataset101_Name".
        :param configuration: as "3d_fullres".
        :param method: as "cronos".
        :param folds: folds whose predictions are averaged.
        :param device: "cpu", "cuda", "cuda:1", "mps"; by default a GPU where there is one.
        :param solver: of a flow; by default the plans' solver.
        :param steps: of the solver.
        :param mirror: average over mirrored inputs; by default as the method has it.
        :returns: the predictor.
        :raises LongflowError: nothing trained fits, or several models do, or the task does not know a setting.
        """
        name = None if dataset is None else str(dataset)
        selection = select(name, configuration, method, None if folds is None else tuple(folds))
        return cls.of(selection, PredictionSettings(device, solver, steps, mirror))

    @classmethod
    def of(cls: type[OfTask], selection: Selection, settings: PredictionSettings | None = None) -> OfTask:
        """Load the selected models.

        :param settings: how predictions are made.
        :returns: the predictor.
        :raises LongflowError: the models cannot be loaded, or the task does not know one of the settings.
        """
        return cls(load_models(selection, cls.task, settings))

    @property
    def words(self) -> Words:
        """Return how messages speak of the task."""
        return get_task(self.task).words

    @abstractmethod
    def requests(self, folder: Path, description: DatasetDescription, **options: Any) -> list[OfRequest]:
        """List what a folder requests; image files are not opened.

        :param options: values of the task's ``request_flags`` that were given.
        :returns: at least one request.
        :raises LongflowError: nothing is requested, or something impossible; all problems at once.
        """

    @abstractmethod
    def files(self, item: OfRequest, folder: Path, description: DatasetDescription) -> list[Path]:
        """Return the images of a request in the output folder."""

    def inputs(self, item: OfRequest) -> Sequence[Path]:
        """Return the images that a prediction is made from: it is made again where one of them has changed."""
        return [path for path in item.target.images if path.is_file()]

    @abstractmethod
    def read(self, item: OfRequest) -> Any:
        """Read and prepare the scans of a request. A thread does it while the prediction before is made.

        :returns: what :meth:`make` needs of them.
        :raises LongflowError: its scans cannot be used.
        """

    def verdict(self, item: OfRequest, scans: Any) -> Verdict:
        """Return whether scans are of the kind that the model was trained on.

        :param scans: as :meth:`read` returned them.
        """
        return UNKNOWN

    @abstractmethod
    def make(self, item: OfRequest, scans: Any) -> Any:
        """Make a requested prediction.

        :param scans: as :meth:`read` returned them.
        :returns: what :meth:`write` needs; scans that it does not need would stay in memory.
        """

    def make_into(self, item: OfRequest, scans: Any, folder: Path, description: DatasetDescription) -> Any:
        """Make a requested prediction, as :meth:`make`; files that would fill the memory are written meanwhile.

        :param scans: as :meth:`read` returned them.
        :param folder: output folder.
        """
        return self.make(item, scans)

    @abstractmethod
    def write(self, item: OfRequest, made: Any, folder: Path, description: DatasetDescription) -> dict[str, Any]:
        """Write the files of a prediction. A thread does it while the next prediction is made.

        :param made: as :meth:`make` returned it.
        :returns: the further fields of its sidecar; ``warnings``, a list of sentences, are logged too. Those of
            :func:`input_warnings`, which are logged already, are ``warnings_of_input``.
        """

    def settings(self) -> dict[str, Any]:
        """Return what a prediction depends on apart from its scans; the predictions of one folder share it."""
        return self.models.settings()

    def conditions(self, item: OfRequest) -> dict[str, Any]:
        """Return the fields of a request's provenance that the predictions of one folder share."""
        return {}

    def finish(self, folder: Path) -> None:
        """Write further tables of an output folder, from its scans.csv and sidecars."""


def load_predictor(selection: Selection, settings: PredictionSettings | None = None) -> Predictor:
    """Load the predictor of the task that the selected model was planned for.

    :param settings: how predictions are made.
    :returns: the predictor, with the selected models.
    :raises LongflowError: the model cannot be loaded or does not know one of the settings.
    """
    return get_task(task_of(selection)).predictor().of(selection, settings)


def predict_folder(
    predictor: Predictor[OfRequest],
    input_folder: Path | str,
    output_folder: Path | str,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
    processes: Processes = ALONE,
    refuse_unfit: bool = False,
) -> list[OfRequest]:
    """Make everything that a folder requests; finished predictions are kept.

    Checks that need no voxels come first, for all subjects. A subject whose images cannot be used is reported at the
    end, after the others are done.

    :param predictor: trained models of one task.
    :param input_folder: images and scans.csv.
    :param output_folder: images, sidecars, scans.csv and dataset.json; a valid input folder.
    :param options: requests for every subject, by the names of the task's flags of ``longflow_predict``: ``times`` and
        ``hide_context`` for forecasts, ``to`` for translations.
    :param overwrite: make finished predictions again.
    :param progress: called with (finished, all, case) as predictions are made.
    :param processes: among which the predictions are shared out; each calls this function.
    :param refuse_unfit: predict nothing from scans that are unfit; an earlier prediction from them is removed.
    :returns: what the folder requests, made now or before.
    :raises ConfigurationError: an option is for models of another task.
    :raises DataError: nothing is requested, or some predictions could not be made (each is named).
    :raises InUseError: another process predicts into the output folder.
    """
    source, folder = Path(input_folder), Path(output_folder)
    items = _checked_requests(predictor, source, folder, options or {})
    warnings = _warnings_of_folder(predictor, source)
    with exclusive_lock(lock_in(folder), f"{folder} is being written") if processes.first else nullcontext():
        if not overwrite:
            processes.from_first(lambda: check_settings(predictor, items, folder))
        description = predictor.models.description
        predict_missing(predictor, items, folder, description, warnings, overwrite, progress, processes, refuse_unfit)
    return items


def predict_missing(
    predictor: Predictor[OfRequest],
    items: Sequence[OfRequest],
    folder: Path,
    description: DatasetDescription,
    warnings: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
    processes: Processes = ALONE,
    refuse_unfit: bool = False,
) -> None:
    """Make the predictions that are missing in a folder whose lock is held; those of another model are made again.

    :param description: of the folder, which becomes its dataset.json.
    :param warnings: of the whole input.
    :param refuse_unfit: predict nothing from scans that are unfit.
    :raises DataError: some could not be made.
    """

    def unfinished() -> list[str]:
        todo = items if overwrite else unfinished_of(predictor, items, folder, description)
        if refuse_unfit and not overwrite:  # those that were made before are judged again
            todo = [*todo, *(item for item in items if item not in todo and is_unfit(item, folder))]
        return [item.target.case for item in todo]

    todo = processes.from_first(unfinished)[processes.index :: processes.count]  # before any process writes
    by_case = {item.target.case: item for item in items}
    share = [by_case[case] for case in todo]
    output = Output(predictor, folder, description, warnings, refuse_unfit=refuse_unfit)
    own = _make_all(output, share, progress)
    failures = {case: line for of_process in processes.gather(own) for case, line in of_process.items()}
    done = [item for item in items if item.target.case not in failures]
    if processes.first:
        wait_for_files(sidecar_of(item, folder) for item in done)
        if done or (folder / "scans.csv").is_file():
            write_table(done, folder, description)
            predictor.finish(folder)
    if failures:
        others = f" The others are in {folder}." if done else ""
        raise DataError(
            f"{len(failures)} of {len(items)} {predictor.words.several} could not be made.{others}\n"
            + "\n".join(failures[item.target.case] for item in items if item.target.case in failures)
        )


def _checked_requests(
    predictor: Predictor[OfRequest], source: Path, folder: Path, options: Mapping[str, Any]
) -> list[OfRequest]:
    """List what a folder requests, after checking options, input and output.

    :param source: input folder.
    :param folder: output folder.
    """
    if folder.resolve() == source.resolve():
        raise ConfigurationError(
            f"Input and output are the same folder; {predictor.words.several} would stand among the scans."
        )
    _check_options(predictor, options)
    description = predictor.models.description
    _check_input_description(source, description)
    items = predictor.requests(source, description, **options)
    check_output(folder, items, predictor.words)
    return items


def _check_options(predictor: Predictor, options: Mapping[str, Any]) -> None:
    """Refuse options that only other tasks know.

    :raises ConfigurationError: the option is for models of another task. :raises NotFoundError: no task has it.
    """
    task = get_task(predictor.task)
    own = [flag.name for flag in task.request_flags]
    others = {flag.name: (flag, other) for other in all_tasks() for flag in other.request_flags}
    for name in options:
        if name in own:
            continue
        if name not in others:
            raise unknown_name("option", name, own, hint=f"(Options for a model that {task.words.verbs}.)")
        flag, other = others[name]
        raise ConfigurationError(
            f"{flag.meaning}, but {predictor.models.members[0].member.model.folder.name} {task.words.verbs}. Remove "
            f"{flag.flags[0]}, or choose a model that {other.words.verbs} with -d and -m."
        )


def _warnings_of_folder(predictor: Predictor, source: Path) -> list[str]:
    """Check the table of the input and compare its times with those of the training; log the warnings."""
    plans = predictor.models.plans
    of_times = plans if get_task(plans.task).predicts_new_scans else None
    problems = verify_input(source, predictor.models.description, of_times)
    return _logged([problem for problem in problems if problem.severity == "warning"])


def input_warnings(volume: Volume, scan: Scan, plans: Plans) -> list[str]:
    """Check a scan that was read to predict from it, and compare it with the training data.

    :param volume: the scan, as read.
    :param scan: names its files.
    :param plans: of the model.
    :returns: warnings for the sidecar; they are logged.
    :raises DataError: nothing can be predicted from it.
    """
    problems = scan_problems(volume, scan.images, plans, scan.phase)
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise DataError(" ".join(map(str, errors)))
    return _logged([*volume.warnings, *problems])


def _logged(problems: Sequence[Problem | str]) -> list[str]:
    sentences = list(dict.fromkeys(map(str, problems)))
    for sentence in sentences:
        logger.warning("%s", sentence)
    return sentences


def _make_all(output: "Output[OfRequest]", items: Sequence[OfRequest], progress: Progress) -> dict[str, str]:
    """Make predictions; return a line for each case that could not be made.

    One subject's failure, whatever it is, must not cost the others. Where the memory is too small, a prediction is made
    again alone, when no other is read or written.
    """

    numbers = {item.target.case: number for number, item in enumerate(items)}

    def begin(item: OfRequest) -> None:
        progress(numbers[item.target.case], len(items), item.target.case)

    def is_large(item: OfRequest) -> bool:
        return memory_of_input(output.predictor, item) > LARGE

    steps = output.read, output.make, output.write, begin, is_large
    failures = {}
    for item, error in zip(items, overlapped(items, *steps), strict=True):
        if isinstance(error, MemoryError) and len(items) > 1:
            (error,) = overlapped([item], *steps)
        if error is not None:
            failures[item.target.case] = f"  {item.target.case}: {_described(error, item.target.case)}"
    progress(len(items), len(items), "")
    return failures


def memory_of_input(predictor: Predictor[OfRequest], item: OfRequest) -> int:
    """Return the bytes in float32 of the images that a prediction is made from, by their headers.

    An image that cannot be read counts as nothing: its error is raised where it is predicted from.
    """
    total = 0
    for path in predictor.inputs(item):
        with suppress(LongflowError):
            total += 4 * math.prod(read_header(path)[0])
    return total


def _described(error: Exception, case: str) -> str:
    if isinstance(error, LongflowError):
        return str(error)
    if isinstance(error, MemoryError):
        return "its scans do not fit into the memory of this machine."
    logger.debug("%s", case, exc_info=error)
    return f"{type(error).__name__}: {error}. Please report this, with --debug."


def _check_input_description(folder: Path, description: DatasetDescription) -> None:
    """Compare the input's dataset.json, where there is one, with the model's.

    The dataset.json of ``imagesTs`` is that of its dataset.
    """
    places = [folder, folder.resolve().parent] if folder.name.startswith("images") else [folder]
    path = next((place / "dataset.json" for place in places if (place / "dataset.json").is_file()), None)
    if path is None:
        return
    given = read_description(path)
    for name in ("time_unit", "channels", "file_ending"):
        value, expected = getattr(given, name), getattr(description, name)
        if value != expected:
            raise DataError(
                f"{path}: {name} is {value}, but the model was trained with {expected}. Convert the input first."
            )


@dataclass(frozen=True)
class Output(Generic[OfRequest]):
    """A folder that predictions are written to, and the steps of making one.

    :param folder: output folder.
    :param description: of the folder.
    :param warnings: of the whole input, for the sidecars.
    :param further: further fields of the sidecars.
    :param refuse_unfit: make nothing from scans that are unfit.
    """

    predictor: Predictor[OfRequest]
    folder: Path
    description: DatasetDescription
    warnings: Sequence[str] = ()
    further: Mapping[str, Any] = field(default_factory=dict)
    refuse_unfit: bool = False

    def read(self, item: OfRequest) -> tuple[dict[str, Any], Any]:
        """Read the scans of a request: fields of the sidecar, and what :meth:`Predictor.read` returns.

        :raises DataError: they are unfit, and unfit ones are refused.
        """
        digests = digests_of(self.predictor, item)
        # an older prediction must not be taken for this one if this one fails
        for path in (sidecar_of(item, self.folder), *self.predictor.files(item, self.folder, self.description)):
            path.unlink(missing_ok=True)
        scans = self.predictor.read(item)
        verdict = self.predictor.verdict(item, scans)
        if self.refuse_unfit and verdict.level == "unfit":
            raise DataError(f"refused, because its scans are unfit for the model. {' '.join(verdict.reasons)}")
        return {"digests": digests, "fitness": verdict.to_json()}, scans

    def make(self, item: OfRequest, given: tuple[dict[str, Any], Any]) -> tuple[dict[str, Any], Any]:
        """Make a prediction of what :meth:`read` returned; its fields are passed on."""
        known, scans = given
        return known, self.predictor.make_into(item, scans, self.folder, self.description)

    def write(self, item: OfRequest, made: tuple[dict[str, Any], Any]) -> None:
        """Write what :meth:`make` returned, then the sidecar, which says that the prediction is finished."""
        known, prediction = made
        fields = self.predictor.write(item, prediction, self.folder, self.description)
        for warning in fields.get("warnings", []):
            logger.warning("%s: %s", item.target.case, warning)
        fitness = known["fitness"]
        for reason in fitness["reasons"] if fitness["verdict"] in ("doubtful", "unfit") else []:
            logger.warning("%s is %s: %s", item.target.case, fitness["verdict"], reason)
        fields["warnings_of_input"] = [*fields.get("warnings_of_input", []), *self.warnings]
        unit = {"time_unit": self.description.time_unit}
        content = {**unit, **self.predictor.settings(), **known, **fields, **self.further}
        write_sidecar(item, self.folder, content)


def make_item(
    predictor: Predictor[OfRequest], item: OfRequest, folder: Path, description: DatasetDescription, **further: Any
) -> None:
    """Make one requested prediction and write it.

    :param folder: output folder.
    :param further: further fields of its sidecar.
    :raises LongflowError: its scans cannot be used.
    """
    output = Output(predictor, folder, description, further=further)
    output.write(item, output.make(item, output.read(item)))
