"""``longflow_export``: write a trained segmentation model as a model folder of nnU-Net."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from longflow.cli import command, flags

EXAMPLE = """
longflow_export -d 103 -o for_nnunet                      # the only model, or what longflow_find_best chose
longflow_export -d 103 -c 3d_fullres -m unet -o for_nnunet
nnUNetv2_predict_from_modelfolder -i in -o out -m for_nnunet -f 0 1 2 3 4
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_export",
        "Write a trained segmentation model as a folder for nnUNetv2_predict_from_modelfolder "
        "-m. nnU-Net then predicts "
        "the same labels, on machines where longflow is not installed.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    flags.add_model(result, "export")
    result.add_argument("-o", "--output", type=Path, required=True, help="folder for the model")
    result.add_argument("--overwrite", action="store_true", help="replace a model in the output folder")
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.inference.selection import select
    from longflow.tasks.segment.nnunet_export import export_to_nnunet

    folds = tuple(options.folds) if options.folds else None
    selection = select(options.dataset, options.configuration, options.method, folds)
    exported = export_to_nnunet(selection, options.output, options.overwrite)
    command.say(
        f"{selection.members[0].model.folder.name} is in {options.output}. With nnU-Net:\n"
        f"nnUNetv2_predict_from_modelfolder -i IN -o OUT -m {options.output} -f {' '.join(map(str, exported))}",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_export``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
