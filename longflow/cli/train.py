"""``longflow_train``: train one fold, or all of them one after the other."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.progress import TaskProgressColumn

from longflow.cli import command, flags
from longflow.cli.progress import bar_with
from longflow.errors import ConfigurationError
from longflow.paths import DatasetPaths, FoldPaths, resolve_dataset_name
from longflow.task import all_tasks

if TYPE_CHECKING:
    from longflow.job import FoldJob

#: times as long as a figure of the course took to draw, it is not drawn again
DRAWING_RESTS = 50

EXAMPLE = """
longflow_train 101 3d_fullres 0                      # CRONOS, fold 0, as planned
longflow_train 101 3d_fullres all -m tfm             # another method, all folds one after the other
longflow_train 104 2d 0 --network segresnet          # translation with another network
longflow_train 101 3d_fullres 0 --max_time 2h        # two hours of training
torchrun --nproc_per_node 4 -m longflow.cli.train 101 3d_fullres 0
srun --ntasks 4 --gpus-per-task 1 longflow_train 101 3d_fullres 0
"""


def parser() -> command.Parser:
    """Build the parser."""
    result = command.Parser(
        "longflow_train",
        "Train one fold, or all. After an interruption, the same command continues; a finished fold is kept.",
        EXAMPLE,
    )
    result.add_argument("dataset", help="101 or Dataset101_Name")
    result.add_argument("configuration", help="2d, 3d_lowres or 3d_fullres")
    result.add_argument("fold", help="0 to 4, or all")
    _add_method(result)
    flags.add_plans(result)
    _add_length(result)
    _add_weights_and_labels(result)
    result.add_argument("--seed", type=flags.number(int), default=0, help="default: 0")
    flags.add_device(result)
    flags.add_workers(result)
    result.add_argument(
        "--scratch",
        metavar="FOLDER",
        help="copy the prepared subjects to this folder on a disk of the machine first, once for all processes on it; "
        "variables are replaced: '$SLURM_TMPDIR'",
    )
    result.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compile the training step, which takes a minute or more at the start (default: on a CUDA GPU)",
    )
    result.add_argument(
        "--measure",
        action="store_true",
        help="measure some steps and some items of a validation, and train nothing: longflow_run then proposes the "
        "time and memory of its jobs",
    )
    result.add_argument(
        "--overwrite", action="store_true", help="train from scratch, even if the fold is finished or begun"
    )
    return result


def _add_method(result: command.Parser) -> None:
    """Add the flags of the method."""
    defaults = ", ".join(f"{task.default_method} ({task.name})" for task in all_tasks())
    result.add_argument("-m", "--method", help=f"default, by task: {defaults}; an unknown name lists all")
    result.add_argument(
        "--network",
        help="network of a method that offers several; an unknown name lists them. The model then has the name "
        "METHOD-NETWORK",
    )
    result.add_argument(
        "--set",
        action="append",
        default=[],
        dest="options",
        metavar="NAME=VALUE",
        help="change an option of the method; an unknown name lists them",
    )


def _add_length(result: command.Parser) -> None:
    """Add the flags of length and learning rate."""
    result.add_argument("--epochs", type=flags.positive(int), help="default: from the plans")
    result.add_argument("--iterations", type=flags.positive(int), help="number of steps, in place of --epochs")
    result.add_argument("--max_time", type=flags.duration, help="time of a fold (90s, 20m, 2h), in place of --epochs")
    result.add_argument("--lr", type=flags.positive(float), help="learning rate (default: the method's, or the plan's)")


def _add_weights_and_labels(result: command.Parser) -> None:
    """Add the flags of the first weights and of the labels."""
    result.add_argument(
        "--pretrained",
        metavar="METHOD|FILE",
        help="first weights: a method trained on the same fold (spatiotemporal), or a checkpoint of longflow; for "
        "segmentation also of nnU-Net or nnssl",
    )
    result.add_argument(
        "--labelled_subjects",
        metavar="N|FILE",
        help="use the labels of N training subjects only, drawn from the seed, or of the subjects in a file, one a "
        "line",
    )


def work(options: argparse.Namespace) -> None:
    """Train the folds."""
    command.set_up_process()
    from longflow.distributed import leave_group
    from longflow.job import FoldJob, FoldSettings
    from longflow.methods.registry import checked_options, named_with_network

    dataset = DatasetPaths(resolve_dataset_name(options.dataset))
    job = FoldJob.resolve(dataset, options.plans, options.configuration, options.method)
    method = named_with_network(job.method, options.network)
    device = flags.checked_device(options.device)
    settings = FoldSettings(
        epochs=options.epochs,
        iterations=options.iterations,
        max_time=options.max_time,
        learning_rate=options.lr,
        seed=options.seed,
        device=device,
        workers=default_workers(device) if options.workers is None else options.workers,
        compile=options.compile,
        options=checked_options(method, dict(map(_name_and_value, options.options))),
        pretrained=options.pretrained,
        labelled_subjects=options.labelled_subjects,
        scratch=options.scratch,
    )
    job = replace(job, method=method, settings=settings)
    folds = folds_of(options.fold, job)
    if options.measure:
        from longflow.training.measure import measure_training

        measure_training(job.with_fold(folds[0]))
    else:
        for fold in folds:
            _train(job.with_fold(fold), options.overwrite)
    leave_group()


def _train(job: "FoldJob", overwrite: bool) -> None:
    """Train one fold with a progress bar."""
    from longflow.distributed import is_first_process
    from longflow.methods.registry import method_class, validation_class_of
    from longflow.report.drawing import progress_figure
    from longflow.training.loop import train_fold
    from longflow.training.progress import AS_NAMED

    shown = getattr(validation_class_of(method_class(job.method)), "progress", AS_NAMED)
    with bar_with(TaskProgressColumn()) as bar:
        task = bar.add_task(f"{job.method} fold {job.fold}", total=1.0, note="")

        def show(share: float, state) -> None:
            bar.update(task, completed=share, note=f"training, step {state.iteration} {state.note}")

        def show_activity(share: float, activity: str) -> None:
            bar.update(task, completed=share, note=activity)

        rests_until, is_drawn = 0.0, True

        def draw(paths: FoldPaths, at_the_end: bool = False) -> None:
            """Draw the course, if that takes no more than about 2 % of the time."""
            nonlocal rests_until, is_drawn
            begun = time.monotonic()
            is_drawn = at_the_end or begun >= rests_until
            if is_drawn:
                progress_figure(paths.progress_csv, paths.progress_png, shown)
                rests_until = time.monotonic() + DRAWING_RESTS * (time.monotonic() - begun)

        paths = train_fold(job, overwrite, on_progress=show, on_activity=show_activity, after_epoch=draw)
        if not is_drawn:
            draw(paths, at_the_end=True)
        bar.update(task, completed=1.0)
    if is_first_process():
        command.say(f"Trained: {paths.folder}")


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--set {text}: expected NAME=VALUE, as --set reconstruction=0.")
    return name.strip(), value.strip()


def folds_of(text: str, job: "FoldJob") -> list[int]:
    """Parse ``all`` or a number."""
    if text == "all":
        from longflow.training.splits import number_of_folds

        return list(range(number_of_folds(job.dataset, job.plans)))
    if not text.isdecimal():
        raise ConfigurationError(f"The fold is '{text}', expected a number from 0 to 4, or all.")
    return [int(text)]


def default_workers(device: str) -> int:
    """Return the workers: none on a CPU, whose cores the network uses; with a GPU, its cores prepare batches."""
    from longflow.parallel import available_cores

    return 0 if device == "cpu" else min(8, max(1, available_cores() - 1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_train``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
