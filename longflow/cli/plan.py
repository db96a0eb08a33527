"""``longflow_plan``: decide how the scans of a dataset are prepared and trained on."""

import argparse
from collections.abc import Sequence
from typing import get_args

from longflow.cli import command, flags
from longflow.paths import DatasetPaths, is_file_of_plans, name_of_plans, resolve_dataset_name
from longflow.plans import Encoder, PresetName
from longflow.task import all_tasks

EXAMPLE = """
longflow_plan -d 101
longflow_plan -d 101 --preset L --gpu_memory 40 -p longflowPlansL
longflow_plan -d 103 --encoder residual -p longflowPlansResidual
longflow_plan -d 101 -p plans/acdc.json
"""


def add_planning_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of planning; ``longflow_plan_and_preprocess`` has them, too."""
    parser.add_argument(
        "--preset", choices=get_args(PresetName), help="size of the networks (default: M with a CUDA GPU, tiny without)"
    )
    parser.add_argument(
        "--gpu_memory",
        type=flags.number(float),
        metavar="GB",
        help="memory of a training step (default: tiny 0.5, S 4, M 8, L 24; a task can have its own)",
    )
    able = [task.name for task in all_tasks() if task.chooses_encoder]
    parser.add_argument(
        "--encoder",
        choices=get_args(Encoder),
        help=f"encoder of nnU-Net's U-Net (default: plain), for the task {', '.join(able)}",
    )
    flags.add_plans(parser, planning=True)


def parser() -> command.Parser:
    """Build the parser."""
    result = command.Parser(
        "longflow_plan",
        "Decide time scale, spacing, patch, batch and network of a dataset from its fingerprint, each with its reason. "
        + flags.task_help("plan"),
        EXAMPLE,
    )
    flags.add_dataset(result)
    add_planning_flags(result)
    return result


def work(options: argparse.Namespace) -> None:
    """Plan the dataset."""
    name = resolve_dataset_name(options.dataset)
    plan_and_show(name, options.preset, options.gpu_memory, options.plans, options.encoder)


def plan_and_show(
    dataset_name: str, preset: str | None, gpu_memory: float | None, plans_name: str, encoder: Encoder | None
) -> None:
    """Plan a dataset and print the summary.

    :param preset: None: by the GPU of this machine.
    :param gpu_memory: GB; None: that of the preset.
    :param plans_name: name of the plans, or the file of a reference plan.
    :param encoder: None: that of the task.
    """
    with command.importing():
        from longflow.planning.run import default_preset, plan_dataset
        from longflow.planning.summary import summarize

    if preset is None and not is_file_of_plans(plans_name):
        preset = default_preset()
        found = "a CUDA GPU was found" if preset == "M" else "no CUDA GPU was found"
        command.say(f"Preset {preset}: {found}. Choose another one by --preset {'|'.join(get_args(PresetName))}")
    with command.console.status("Planning: estimating the memory of training steps ..."):
        planned = plan_dataset(dataset_name, preset, gpu_memory, plans_name, encoder)
    command.say(summarize(planned.fingerprint, planned.plans))
    if planned.previous:
        text = f"The previous plans of this name were different; they are kept as {planned.previous}"
        command.say(text)
    command.say(f"Plans: {DatasetPaths(dataset_name).plans(name_of_plans(plans_name))}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_plan``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
