"""``longflow_plan_and_preprocess``: do everything between a raw dataset and training."""

import argparse
from collections.abc import Sequence

from longflow.cli import command, flags
from longflow.cli.plan import add_planning_flags
from longflow.paths import PLANS_NAME, DatasetPaths, name_of_plans, resolve_dataset_name
from longflow.task import get_task

EXAMPLE = """
longflow_plan_and_preprocess -d 101
longflow_plan_and_preprocess -d 101 102 --preset S -c 3d_fullres
longflow_plan_and_preprocess -d 101 -p plans/acdc.json
"""


def parser() -> command.Parser:
    """Build the parser."""
    result = command.Parser(
        "longflow_plan_and_preprocess",
        "Check the raw data, take their fingerprint, plan, and preprocess. Results that are up to date are kept. "
        + flags.task_help("plan"),
        EXAMPLE,
    )
    result.add_argument("-d", "--dataset", nargs="+", required=True, help="ids or names, as 101 or Dataset101_Cine")
    add_planning_flags(result)
    result.add_argument(
        "-c", "--configurations", nargs="+", metavar="NAME", help="configurations to preprocess (default: all)"
    )
    flags.add_processes(result)
    result.add_argument("--overwrite", action="store_true", help="repeat all steps")
    result.add_argument("--no_verify", action="store_true", help="skip the check of the raw data")
    return result


def work(options: argparse.Namespace) -> None:
    """Prepare every dataset."""
    for name in [resolve_dataset_name(dataset) for dataset in options.dataset]:
        prepare(name, options)


def prepare(name: str, options: argparse.Namespace) -> None:
    """Do all steps for one dataset; an error of the data stops before anything is written."""
    from longflow.cli import extract_fingerprint, plan, preprocess, verify
    from longflow.data.dataset import training_series
    from longflow.parallel import start_server
    from longflow.plans import read_plans

    if options.processes != 1:  # with one, the work is done in this process
        start_server("longflow.integrity.voxels", "longflow.preprocessing.run")
    if not options.no_verify:
        verify.check(DatasetPaths(name), options.processes)
    step = argparse.Namespace(
        dataset=name,
        processes=options.processes,
        overwrite=options.overwrite,
        plans=name_of_plans(options.plans),
        configurations=options.configurations,
        part=(1, 1),
    )
    extract_fingerprint.work(step)
    plan.plan_and_show(name, options.preset, options.gpu_memory, options.plans, options.encoder)
    preprocess.work(step)
    description, all_series = training_series(DatasetPaths(name).raw)
    task = get_task(description.task)
    further = "" if step.plans == PLANS_NAME else f" -p {step.plans}"
    further += task.training_flags(description, all_series)
    number, usual = DatasetPaths(name).id, task.usual_configuration
    prepared = options.configurations or list(read_plans(DatasetPaths(name).plans(step.plans)).configurations)
    configuration = usual if usual in prepared else prepared[0]  # scans of one slice have no 3D configuration
    command.say(f"Next: longflow_train {number} {configuration} 0{further}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_plan_and_preprocess``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
