"""A task: the purpose of a study. Engines ask the task; they never compare its name.

A fourth task is one new folder: ``longflow/tasks/{name}/`` with a module ``task`` whose attribute ``TASK`` is an
instance of :class:`Task`. An installed package brings one by an entry point of the group ``longflow.tasks``.

This module and the ``task`` modules stay light: a command's ``--help`` reads them. Whatever needs NumPy or torch is
imported inside the methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from longflow.errors import ConfigurationError
from longflow.registry import Registry

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from longflow.data.dataset import DatasetDescription, Series
    from longflow.evaluation.evaluation import Evaluation, EvaluationJob
    from longflow.fingerprint.fingerprint import Fingerprint
    from longflow.fingerprint.intensities import IntensityMaps
    from longflow.fingerprint.spatial import ChannelIntensities
    from longflow.fingerprint.temporal import TemporalFingerprint
    from longflow.inference.predictor import Predictor
    from longflow.inference.selection import Selection
    from longflow.integrity.problems import Problem
    from longflow.parallel import Progress
    from longflow.paths import DatasetPaths
    from longflow.planning.presets import Preset
    from longflow.plans import ChannelPlan, ConfigurationPlan, InferencePlan, NormalForm, Plans, TemporalPlan
    from longflow.preprocessing.normal_form import Region


@dataclass(frozen=True)
class Words:
    """How messages speak of a task. Nothing is built from the task's name.

    :param summary: one line for overviews.
    :param verb: infinitive, as "segment".
    :param verbs: third person.
    :param done: past participle, as "segmented".
    :param doing: for progress bars, as "Segmenting".
    :param one: a prediction, as "label map".
    :param several: plural of it.
    :param needs: what a subject must have, as "at least 2 scans".
    :param help: sentences about the task for the help of commands ("plan", "predict", "evaluate", "find_best"), by
        command; under "demo" a phrase for the subject of the demo.
    """

    summary: str
    verb: str
    verbs: str
    done: str
    doing: str
    one: str
    several: str
    needs: str
    help: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestFlag:
    """A flag of ``longflow_predict`` that only one task understands.

    :param name: of the parsed value; the task's predictor gets it under this name.
    :param flags: as typed, as ("-t", "--times").
    :param meaning: subject of the message for models of another task,
        as "Times (-t) are for forecasts".
    :param arguments: further arguments of ``add_argument``.
    """

    name: str
    flags: tuple[str, ...]
    meaning: str
    arguments: Mapping[str, Any]


class VolumesOfPredictions(Protocol):
    """Measures structures in the predictions of a folder."""

    def write(self, items: Sequence[Any], folder: Path, progress: "Progress" = ...) -> tuple[str, ...]:
        """Write volumes.csv and label maps; return the names of the files. :param items: finished predictions."""
        ...


class Task(ABC):
    """What a task is; one instance each.

    :cvar name: as in dataset.json.
    :cvar words: for messages and help.
    :cvar default_method: the method where the user names none.
    :cvar usual_configuration: likewise.
    :cvar least_scans: scans that a subject must have to be of use.
    :cvar uses_labels: label images are learned from: they must be good, and each fold needs some to validate on.
    :cvar uses_phases: a sample is a pair of contrast phases of one time (column ``phase`` of scans.csv).
    :cvar plans_grid: the temporal grid of discrete methods is planned.
    :cvar uses_conditions: the period and the covariates of dataset.json are conditions of its methods.
    :cvar requires_images: every row of a table needs an image; elsewhere a row without one requests a prediction.
    :cvar predicts_new_scans: a prediction is a scan that was not acquired. An importer therefore makes some scans of
        test subjects targets; elsewhere all of them are inputs.
    :cvar requires_units: CT that is not in Hounsfield units is an error, elsewhere a warning.
    :cvar own_slices: the 2d configuration reads the slices of the files as they are.
    :cvar chooses_encoder: ``longflow_plan --encoder`` has a meaning.
    :cvar draws_patches: samples are patches of scans and pairs, which ``mirror_axes``, ``pairs_per_batch`` and
        ``shared_intensity`` of the plans change; elsewhere plans that set them are refused.
    :cvar uses_segmenter: a trained model can segment predicted and acquired scans (``--structures``).
    :cvar evaluates_structures: likewise in ``longflow_evaluate`` (``--segmenter``).
    :cvar compares_methods: ``longflow_compare`` can compare methods of the task.
    :cvar fixed_learning_rate: the plan's learning rate holds for all methods; elsewhere each has its own.
    :cvar region: whose voxels the statistics of the intensity normal form are taken of.
    :cvar samples: kinds of training samples that the task brings, name to "module:class".
    :cvar validations: kinds of validation that the task brings, likewise. Methods name one of each.
    :cvar metrics: metrics that the task brings, name to "module:attribute", in the order of tables.
    :cvar request_flags: flags of ``longflow_predict``.
    :cvar predictor_class: "module:class" of the predictor.
    :cvar demo: module of ``longflow_demo --task``; empty where there is none.
    """

    name: ClassVar[str]
    words: ClassVar[Words]
    default_method: ClassVar[str]
    predictor_class: ClassVar[str]
    usual_configuration: ClassVar[str] = "3d_fullres"
    least_scans: ClassVar[int] = 1
    uses_labels: ClassVar[bool] = False
    uses_phases: ClassVar[bool] = False
    plans_grid: ClassVar[bool] = False
    uses_conditions: ClassVar[bool] = False
    requires_images: ClassVar[bool] = False
    predicts_new_scans: ClassVar[bool] = False
    requires_units: ClassVar[bool] = False
    own_slices: ClassVar[bool] = False
    chooses_encoder: ClassVar[bool] = False
    draws_patches: ClassVar[bool] = False
    uses_segmenter: ClassVar[bool] = False
    evaluates_structures: ClassVar[bool] = False
    compares_methods: ClassVar[bool] = False
    fixed_learning_rate: ClassVar[bool] = True
    region: ClassVar["Region"] = "nonzero"
    samples: ClassVar[Mapping[str, str]] = {}
    validations: ClassVar[Mapping[str, str]] = {}
    metrics: ClassVar[Mapping[str, str]] = {}
    request_flags: ClassVar[tuple[RequestFlag, ...]] = ()
    demo: ClassVar[str] = ""

    @property
    def apart_by(self) -> tuple[str, ...]:
        """Columns of scans.csv by which two scans of one subject and time are told apart."""
        return ("phase",) if self.uses_phases else ()

    # ---- the raw dataset

    def scan_count_problems(self, counts: Mapping[str, int], table: str) -> list["Problem"]:
        """Judge the numbers of scans of the training subjects.

            :param counts: scans of each subject.
        :param table: name of the table for messages.
        """
        return []

    def test_problems(self, raw: Path, description: "DatasetDescription") -> list["Problem"]:
        """Find problems of how the test subjects are predicted; their scans are checked elsewhere.

        :param raw: folder of the raw dataset.
        """
        return []

    def write_test_protocol(
        self, raw: Path, description: "DatasetDescription", contexts: str, **settings: int
    ) -> tuple[Path, str]:
        """Draw what is predicted of the test subjects, and from what, and store it.

        :param raw: folder of the raw dataset.
        :param contexts: how the inputs of a prediction are drawn.
        :param settings: those of the draw that differ from the defaults.
        :returns: the file, and a sentence on its content.
        :raises ConfigurationError: the task needs no protocol, or another one is stored.
        """
        raise ConfigurationError(
            f"A test protocol is for forecasts, but {raw.name} is to be {self.words.done}: every scan of imagesTs is "
            "predicted from. Omit --test_protocol."
        )

    def training_flags(self, description: "DatasetDescription", all_series: Sequence["Series"]) -> str:
        """Flags of ``longflow_train`` to suggest for a first training; empty where the defaults are right."""
        return ""

    def prediction_flags(self, description: "DatasetDescription", test_scans: Sequence["Series"]) -> tuple[str, ...]:
        """Flags of ``longflow_predict`` for the test scans of a dataset, where the defaults do not say what to make.

        :param test_scans: those of imagesTs that have images.
        """
        return ()

    # ---- planning

    def normal_form(self, description: "DatasetDescription", maps: "IntensityMaps | None") -> tuple["NormalForm", str]:
        """Choose the intensity normal form of a channel that is not CT, and say why.

        :param description: dataset.json.
        :param maps: of the channel between neighbouring scans; None: not measured.
        :returns: the form and the reason.
        """
        return "per_scan", f"a scan is {self.words.done} by itself, with its own mean and standard deviation"

    @property
    def sees_single_scans(self) -> bool:
        """Whether a scan is prepared without the others of its subject, so that no form of a subject can be its."""
        return True

    def adapt_channel(self, channel: "ChannelPlan", intensities: "ChannelIntensities") -> "ChannelPlan":
        """Change the plan of a channel of absolute units (CT), as by clipping.

        :param intensities: of the channel in the foreground of all scans.
        """
        return channel

    @abstractmethod
    def plan_time(self, fingerprint: "TemporalFingerprint", longest_sequence: int) -> "TemporalPlan":
        """Make all temporal choices.

        :param longest_sequence: most context scans that the preset allows.
        :raises DataError: the times cannot serve the task.
        """

    @abstractmethod
    def preset(self, name: str, description: "DatasetDescription", encoder: str | None) -> "Preset":
        """Return the sizes that a preset means for the networks of the task."""

    def inference(self, preset: "Preset") -> "InferencePlan | None":
        """Return how predictions are made where the user does not say; None: the defaults of the plans."""
        return None

    def planned_methods(self, plans: "Plans", has_pairs: bool) -> list[str]:
        """List the methods whose memory is estimated and written down.

        :param has_pairs: whether a subject has two scans.
        """
        return [self.default_method]

    def deciding_methods(self, plans: "Plans", methods: Sequence[str]) -> list[str]:
        """List those of the planned methods of which the largest decides the patch."""
        return list(methods)

    def planning_remarks(self, plan: "ConfigurationPlan", deciding: Sequence[str], gpu_memory: float) -> list[str]:
        """Say what a user must know of the memory of further methods of a configuration.

            :param deciding: methods that decided the patch.
        :param gpu_memory: GB that was planned for.
        """
        return []

    def plan_summary(self, fingerprint: "Fingerprint", plans: "Plans") -> list["RenderableType"]:
        """Return the tables of ``longflow_plan`` that only this task has."""
        return []

    def plan_phase_channels(
        self, fingerprint: "Fingerprint", description: "DatasetDescription"
    ) -> dict[str, list["ChannelPlan"]]:
        """Choose the normal form of the channels of each phase, where phases are different modalities.

        :returns: by phase; empty where they are not.
        """
        return {}

    def plan_identity(self, plans: "Plans", plan: "ConfigurationPlan") -> dict[str, Any]:
        """Return what trained weights depend on apart from space, time, channels and network."""
        return {}

    # ---- prediction

    def predictor(self) -> type["Predictor"]:
        """Import the predictor."""
        from importlib import import_module

        module, _, name = self.predictor_class.partition(":")
        return getattr(import_module(module), name)

    def volumes_of_predictions(
        self, predictor: "Predictor", segmenter: "Selection", device: str | None = None
    ) -> "VolumesOfPredictions":
        """Load what measures structures in predictions and in the scans that are given (``--structures``).

        :param predictor: of the task.
        :param segmenter: the model that segments.
        :raises ConfigurationError: predictions of the task are not segmented, or the models do not fit.
        """
        raise self.no_segmenter()

    # ---- evaluation

    def calibrate(
        self,
        selection: "Selection",
        segmenter: "Selection",
        level: float,
        device: str | None = None,
        progress: "Progress | None" = None,
        retest: "Path | None" = None,
    ) -> dict[str, Any]:
        """Make intervals of the volumes of structures in predictions; write and return the content of calibration.json.

        :param selection: the model that predicts.
        :param segmenter: the model that segments.
        :param level: lowest probability with which an interval holds.
        :param retest: table of pairs of scans without change in between; None: noise of measurement is not estimated.
        :raises ConfigurationError: predictions of the task are not segmented.
        """
        raise self.no_segmenter()

    def show_calibration(self, record: Mapping[str, Any], console: "Console") -> None:
        """Print what :meth:`calibrate` found."""
        raise self.no_segmenter()

    def no_segmenter(self, in_evaluation: bool = False) -> ConfigurationError:
        """Return the error for a model that segments predictions of a task that does not use one.

        :param in_evaluation: whether it is for ``longflow_evaluate``.
        """
        trait = "evaluates_structures" if in_evaluation else "uses_segmenter"
        using = " and ".join(one.words.several for one in all_tasks() if getattr(one, trait))
        return ConfigurationError(
            f"A model that segments (--structures) is for {using}; the predictions of this dataset are "
            f"{self.words.several}. Remove it."
        )

    @abstractmethod
    def evaluate(self, job: "EvaluationJob", progress: "Progress | None" = None) -> "Evaluation":
        """Compare a folder of predictions with the references; write tables and figures into it."""

    @abstractmethod
    def find_best(
        self,
        dataset: "DatasetPaths",
        processes: int | None = None,
        progress: "Progress | None" = None,
        ensembles: bool = True,
    ) -> dict[str, Any]:
        """Choose the model to predict with on the cross-validation; write and return the content of best.json.

        :param ensembles: whether means of two models are candidates, too.
        """

    @abstractmethod
    def show_best(self, best: Mapping[str, Any], console: "Console") -> None:
        """Print what :meth:`find_best` found."""


def _own_tasks() -> dict[str, str]:
    """Every folder of ``longflow/tasks`` that has a module ``task``."""
    folder = Path(__file__).parent / "tasks"
    return {
        entry.name: f"longflow.tasks.{entry.name}.task:TASK"
        for entry in sorted(folder.iterdir())
        if (entry / "task.py").is_file()
    }


TASKS = Registry("task", "longflow.tasks", _own_tasks, lambda found: isinstance(found, Task), "a longflow.task.Task")

#: the task of a dataset.json that names none
DEFAULT_TASK = "forecast"


def get_task(name: str) -> Task:
    """Return a task by its name in dataset.json.

    :raises NotFoundError: no such task. :raises ConfigurationError: that of an installed package cannot be loaded.
    """
    return TASKS.get(name)


def all_tasks() -> list[Task]:
    """Return every task that can be loaded, longflow's own first."""
    own = list(_own_tasks())
    found = []
    for name in [*own, *(name for name in TASKS.names() if name not in own)]:
        try:
            found.append(TASKS.get(name))
        except ConfigurationError:
            continue  # said when somebody asks for it
    return found


def known_task(name: str) -> str:
    """Check a task's name, for plans and dataset.json. :raises ValueError: there is none of that name."""
    if name not in TASKS.names():
        raise ValueError(f"'{name}' is not a task; expected one of {', '.join(TASKS.names())}")
    return name
