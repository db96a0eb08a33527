"""What a step asks a cluster for: settings of the user, and for the rest proposals from plans and measurements."""

import math
from dataclasses import dataclass, field

from longflow.cluster.settings import ClusterSettings, StepSettings, seconds_of
from longflow.cluster.steps import Step, StepKind
from longflow.cluster.study import Study
from longflow.errors import ConfigurationError
from longflow.paths import FoldPaths, ModelPaths
from longflow.reading import read_json
from longflow.training.measured import MeasuredTraining, read_measured

#: what is added to a measured time, and to the measured or estimated memory, so that chance does not end a job
MARGIN_OF_TIME, MARGIN_OF_MEMORY = 1.3, 1.3
#: seconds to start, and to write the out-of-fold predictions
START_AND_END = 900
#: cores, and hours, of steps whose time nobody has measured. A training that takes longer goes on in the same job
CORES: dict[StepKind, int] = {
    "prepare": 4,
    "preprocess": 8,
    "measure": 8,
    "train": 8,
    "find_best": 4,
    "predict": 4,
    "evaluate": 4,
    "report": 4,
    "compare": 4,
}
HOURS: dict[StepKind, int] = {
    "prepare": 4,
    "preprocess": 12,
    "measure": 1,
    "train": 24,
    "find_best": 4,
    "predict": 12,
    "evaluate": 8,
    "report": 4,
    "compare": 12,
}
#: kinds of steps that use a GPU, and those whose work several processes share, one for each GPU
ON_GPU: tuple[StepKind, ...] = ("measure", "train", "predict", "compare")
SHARED: tuple[StepKind, ...] = ("measure", "train", "predict")
#: GB of a process with torch, and of each worker process with its subject
PROCESS_MEMORY, WORKER_MEMORY = 6.0, 3.0
GB = 1e9
#: bytes a second that a slow shared file system takes, and seconds to end a step of the training
WRITE_SPEED, LAST_STEP = 50e6, 60
#: bytes of a checkpoint that nobody has seen, and files of one size in a checkpoint: weights, average, two moments
UNKNOWN_CHECKPOINT, COPIES_OF_WEIGHTS = 2e9, 4
#: restarts of a job beyond those that its time needs (preemption, dying nodes), and where its time is unknown
SPARE_RESTARTS, UNKNOWN_RESTARTS = 3, 20


@dataclass(frozen=True)
class Resources:
    """What a step asks for. Steps with equal resources become one job array.

    :param kind: of the step.
    :param cores: for each process.
    :param memory: GB of a node.
    :param seconds: time limit.
    :param lead: seconds before the end at which Slurm warns the job.
    :param restarts: how often the job may be put back into the queue.
    :param why: where the proposed numbers are from.
    """

    kind: StepKind
    settings: StepSettings
    nodes: int
    gpus: int
    cores: int
    memory: float
    seconds: int
    lead: int
    restarts: int
    why: str = field(default="", compare=False)

    @property
    def processes(self) -> int:
        """Number of processes: one for each GPU of all nodes, where a kind of step is for several."""
        return self.nodes * max(1, self.gpus) if self.kind in SHARED else 1


def resources_of(step: Step, study: Study, settings: ClusterSettings) -> Resources:
    """Decide what a step asks for.

    :raises ConfigurationError: the time limit is too short to save one checkpoint.
    """
    own = settings.of(step.kind)
    gpus = own.gpus if own.gpus is not None else int(step.kind in ON_GPU)
    cores = own.cpus or CORES[step.kind]
    nodes = (own.nodes or 1) if step.kind in SHARED else 1
    measured = _measured(step, study, nodes * max(1, gpus))
    expected, source = _expected_seconds(step, study, measured)
    lead = _lead(step, study)
    if own.time:
        seconds = seconds_of(own.time)
    elif expected:
        seconds = 60 * math.ceil(round(expected) / 60)
    else:
        seconds = 3600 * HOURS[step.kind]
    if seconds < 2 * lead + 60:
        raise ConfigurationError(
            f"{step.name}: {settings.place_of(step.kind, 'time')} in cluster.json is {seconds / 60:g} minutes, but a "
            f"checkpoint needs {lead} s to be saved, and as long to be read again. Expected at least "
            f"{math.ceil((2 * lead + 60) / 60)} minutes."
        )
    restarts = UNKNOWN_RESTARTS
    if expected:
        restarts = math.ceil(expected / (seconds - lead)) - 1 + SPARE_RESTARTS
    memory, why_memory = _memory(step, study, gpus, cores, measured)
    why_time = f"{expected / 3600:.1f} h expected from {source}" if expected else "time not measured yet"
    proposed = [why for why, given in ((why_time, own.time), (why_memory, own.memory)) if not given]
    return Resources(
        kind=step.kind,
        settings=own,
        nodes=nodes,
        gpus=gpus,
        cores=cores,
        memory=own.memory or memory,
        seconds=seconds,
        lead=lead,
        restarts=restarts,
        why="; ".join(proposed) or "as cluster.json says",
    )


def _memory(step: Step, study: Study, gpus: int, cores: int, measured: MeasuredTraining | None) -> tuple[float, str]:
    """Propose the main memory of a node in GB, and say from what."""
    workers = cores * WORKER_MEMORY
    # folds that were trained with a GPU say nothing of the main memory
    costs = [] if gpus else _costs(step, study)
    peaks = [cost["peak_memory"] / GB for cost in costs if cost.get("peak_memory")]
    if measured and measured.main_memory:
        peaks.append(measured.main_memory / GB)
    if peaks:
        held = max(1, gpus) * math.ceil(MARGIN_OF_MEMORY * max(peaks) + 1)
        return held, f"{max(peaks):.1f} GB of a process measured x {MARGIN_OF_MEMORY:g} + 1"
    if gpus or step.model is None:
        held = max(1, gpus) * (PROCESS_MEMORY + workers)
        return held, f"{PROCESS_MEMORY:g} GB for a process and {WORKER_MEMORY:g} GB for each core"
    plans, (method, configuration) = study.plans, step.model
    if plans is None or configuration not in plans.configurations:
        return (
            PROCESS_MEMORY + workers,
            f"{PROCESS_MEMORY:g} GB and {WORKER_MEMORY:g} GB for each core: not planned yet",
        )
    planned = plans.configurations[configuration].memory_estimate.get(method, plans.gpu_memory)
    return math.ceil(MARGIN_OF_MEMORY * planned + 4), f"{planned:.1f} GB planned x {MARGIN_OF_MEMORY:g} + 4"


def _finished_folds(step: Step, study: Study) -> list[FoldPaths]:
    """Return the finished folds of a step's model, those of the study's first seed included."""
    if step.fold is None:
        return []
    own = step.fold.folder.parent
    models = [ModelPaths(folder) for folder in dict.fromkeys((own, study.dataset.results / own.name))]
    return [model.fold(fold) for model in models for fold in model.finished_folds()]


def _costs(step: Step, study: Study) -> list[dict]:
    """Return the recorded costs of the finished folds of a step's model."""
    records = [fold.run for fold in _finished_folds(step, study)]
    return [cost for path in records if path.is_file() and (cost := read_json(path, dict).get("cost"))]


def _measured(step: Step, study: Study, processes: int) -> MeasuredTraining | None:
    """Return the measurement of a training with as many processes; None: there is none of the present plan."""
    if step.fold is None:
        return None
    model = ModelPaths(step.fold.folder.parent)
    plans = study.plans if model.measured(processes).is_file() else None
    return read_measured(model, processes, plans) if plans else None


def _expected_seconds(step: Step, study: Study, measured: MeasuredTraining | None) -> tuple[float | None, str]:
    """Expect the seconds of a training, with the margin, and say from what; None: nothing is known.

    A time budget is the time. Else finished folds of the same model say how long a step takes, or a measurement.
    """
    if step.kind != "train":
        return None, ""
    if study.max_time:
        return 1.1 * study.max_time + START_AND_END, "--max_time"
    rates = [cost["seconds"] / cost["iterations"] for cost in _costs(step, study) if cost.get("iterations")]
    if rates and study.iterations is not None:
        return MARGIN_OF_TIME * max(rates) * study.iterations + START_AND_END, "finished folds"
    if measured and study.iterations is not None and study.plans:
        return MARGIN_OF_TIME * measured.seconds_of(study.iterations, study.plans) + START_AND_END, "measured steps"
    return None, ""


def _lead(step: Step, study: Study) -> int:
    """Return how many seconds before the end of a job its saving has to begin, from the size of a checkpoint."""
    if step.fold is None:
        return LAST_STEP
    size = UNKNOWN_CHECKPOINT
    if step.fold.latest.is_file():
        size = step.fold.latest.stat().st_size
    elif finals := [fold.final.stat().st_size for fold in _finished_folds(step, study)]:
        size = COPIES_OF_WEIGHTS * max(finals)
    return LAST_STEP + 10 * math.ceil(size / WRITE_SPEED / 10)
