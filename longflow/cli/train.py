"""longflow_train: train one fold, or all of them one after the other."""

import argparse
import os
import re
from collections.abc import Sequence

from longflow.cli import command
from longflow.errors import ConfigurationError

EXAMPLE = """
longflow_train 101 3d_fullres 0                      # CRONOS, fold 0, as planned
longflow_train 101 3d_fullres all -m tfm             # another method, the five folds one after the other
longflow_train 101 3d_fullres 0 --max_time 2h        # as good as two hours allow
torchrun --nproc_per_node 4 -m longflow.cli.train 101 3d_fullres 0
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.Parser(
        "longflow_train",
        "Train one fold. Run again after an interruption, it goes on; a finished fold is left as it is.",
        EXAMPLE,
    )
    parser.add_argument("dataset", help="101 or Dataset101_Name")
    parser.add_argument("configuration", help="2d, 3d_lowres or 3d_fullres")
    parser.add_argument("fold", help="0 to 4, or all")
    parser.add_argument("-m", "--method", default="cronos", help="default: cronos; an unknown name lists all")
    parser.add_argument("-p", "--plans", default="longflowPlans", help="name of the plans (default: longflowPlans)")
    parser.add_argument("--epochs", type=positive(int), help="default: from the plans")
    parser.add_argument("--iterations", type=positive(int), help="number of steps, instead of --epochs")
    parser.add_argument("--max_time", type=duration, help="time budget (90s, 20m, 2h), instead of --epochs")
    parser.add_argument("--lr", type=positive(float), help="learning rate (default: from the plans)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", help="cpu, cuda, mps (default: a GPU where there is one)")
    parser.add_argument(
        "-np", "--workers", type=int, help="processes that prepare batches (default: by cores and device)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the network; worth it for long runs")
    parser.add_argument("--overwrite", action="store_true", help="train anew, even if the fold is finished or begun")
    return command.run(parser, work, arguments)


def work(options: argparse.Namespace) -> None:
    # waiting threads must not spin: on shared machines that triples the time of a step; read when torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from longflow.methods.method import method_class
    from longflow.paths import DatasetPaths, resolve_dataset_name
    from longflow.plans import read_plans
    from longflow.training.run import RunSettings

    dataset = DatasetPaths(resolve_dataset_name(options.dataset))
    method_class(options.method)
    plans = read_plans(dataset.plans(options.plans))
    plans.configuration(options.configuration)
    device = checked_device(options.device)
    settings = RunSettings(
        epochs=options.epochs,
        iterations=options.iterations,
        max_time=options.max_time,
        learning_rate=options.lr,
        seed=options.seed,
        device=device,
        workers=default_workers(device) if options.workers is None else options.workers,
        compile=options.compile,
    )
    for fold in folds_of(options.fold, dataset, plans):
        _train(dataset, options, fold, settings)


def _train(dataset, options: argparse.Namespace, fold: int, settings) -> None:
    """One fold with a progress bar."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from longflow.report.figures import progress_figure
    from longflow.training.trainer import train_fold

    columns = (
        TextColumn(f"{options.method} fold {fold}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[found]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=command.error_console) as bar:
        task = bar.add_task("", total=1.0, found="")

        def show(share: float, state) -> None:
            found = f"NRMSE {state.best_nrmse:.4f}, LCI {state.lci_nrmse:.4f}" if state.best_nrmse is not None else ""
            bar.update(task, completed=share, found=f"step {state.iteration} {found}")

        def draw(paths) -> None:
            progress_figure(paths.progress_csv, paths.progress_png)

        paths = train_fold(
            dataset,
            options.plans,
            options.method,
            options.configuration,
            fold,
            settings,
            options.overwrite,
            on_progress=show,
            after_epoch=draw,
        )
        bar.update(task, completed=1.0)
    command.console.print(f"Trained: {paths.folder}", highlight=False)


def folds_of(text: str, dataset, plans) -> list[int]:
    """``all`` or a number to the folds that are meant."""
    if text == "all":
        from longflow.training.trainer import number_of_folds

        return list(range(number_of_folds(dataset, plans)))
    if not text.isdigit():
        raise ConfigurationError(f"The fold is '{text}', expected a number from 0 to 4, or all.")
    return [int(text)]


def checked_device(name: str | None) -> str:
    """A device that exists; by default a GPU where there is one."""
    import torch

    from longflow.networks.precision import default_device

    if name is None:
        return str(default_device())
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"The device '{name}' cannot be used here: {str(error).splitlines()[0]}") from error
    return name


def default_workers(device: str) -> int:
    """On a CPU the cores are the network's own; beside a GPU they prepare batches."""
    from longflow.parallel import available_cores

    return 0 if device == "cpu" else min(8, max(1, available_cores() - 1))


def duration(text: str) -> float:
    """``90s``, ``20m``, ``2h``, ``1.5d`` or a number of seconds to seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time; examples: 90s, 20m, 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def positive(kind: type):
    """A parser of numbers above zero."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number") from error
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value

    return parse


if __name__ == "__main__":
    raise SystemExit(main())
