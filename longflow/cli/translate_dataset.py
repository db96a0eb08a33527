"""``longflow_translate_dataset``: write a labelled dataset in the contrast phase that it lacks."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from longflow.cli import command, flags
from longflow.cli.import_dataset import new_dataset_name
from longflow.cli.progress import progress_bar
from longflow.errors import ConfigurationError, first_few
from longflow.paths import DATASET_NAME, raw_root

EXAMPLE = """
longflow_translate_dataset -d 104 --to native -o Dataset204_Native         # into longflow_raw
longflow_translate_dataset -d 104 --to native -o nnUNet_raw/Dataset204_Native
nnUNetv2_plan_and_preprocess -d 204 --verify_dataset_integrity             # where nnUNet_raw is that folder
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_translate_dataset",
        "Translate the labelled training scans of a dataset into the other contrast phase and copy their labels. The "
        "result is a dataset for longflow (task segment) and nnU-Net. Each scan is translated by the folds that were "
        "not trained on its subject, where there are any. No clinical conclusions should be drawn from synthesised "
        "images alone.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    result.add_argument("--to", metavar="PHASE", required=True, help="requested contrast phase")
    result.add_argument("-o", "--output", required=True, help="Dataset204_Name, or a path to such a folder")
    flags.add_model(result, "translate with")
    flags.add_prediction_settings(result)
    result.add_argument("--overwrite", action="store_true", help="replace a dataset that this command wrote")
    return result


def output_folder(text: str) -> Path:
    """Return the folder of a new dataset.

    :param text: name of a dataset in longflow_raw, or path to a folder with such a name.
    :raises ConfigurationError: the name is wrong, or its id is used by another dataset.
    """
    path = Path(text)
    if not DATASET_NAME.fullmatch(path.name):
        raise ConfigurationError(
            f"'{path.name}' is no name for a dataset. Expected, for nnU-Net too, three digits and a name of letters, "
            "digits, - and _, as in -o Dataset204_Native."
        )
    return raw_root() / new_dataset_name(text, None) if path.name == text else path


def work(options: argparse.Namespace) -> None:
    command.set_up_process()
    output = output_folder(options.output)
    from longflow.inference.models import PredictionSettings
    from longflow.inference.selection import select
    from longflow.tasks.translate.predictor import Translator
    from longflow.tasks.translate.translated_dataset import write_translated_dataset

    folds = None if options.folds is None else tuple(options.folds)
    selection = select(options.dataset, options.configuration, options.method, folds)
    device = flags.checked_device(options.device)
    settings = PredictionSettings(device, options.solver, options.steps, options.mirror)
    translator = Translator.of(selection, settings)
    for member in selection.members:
        command.say(f"Model: {selection.dataset.name} / {member.model.folder.name}, folds {first_few(member.folds)}")
    with progress_bar(translator.words.doing) as progress:
        result = write_translated_dataset(translator, options.to, output, options.overwrite, progress)
    if not result.written:
        command.say(f"Translated before, nothing to do: {output}")
        return
    (source,) = {item.source.phase for item in result.translations}
    count, trained_on = len(result.translations), len(result.trained_on)
    command.say(f"Labelled scans translated from {source} to {options.to}: {count}, in {output}")
    command.say(f"  by folds that were not trained on their subject: {count - trained_on}")
    if trained_on:
        command.say(
            f"  by folds that were, as there is no other: {trained_on} ({first_few(result.trained_on)}). They may look "
            "better than translations of new scans."
        )
    if result.unlabelled:
        command.say(f"Scans in the phase {source} without a label, excluded: {result.unlabelled}")
    command.say("No clinical conclusions should be drawn from synthesised images alone.")
    command.say(f"Next: longflow_plan_and_preprocess -d {output.name[7:10]}, or nnUNetv2_plan_and_preprocess likewise")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_translate_dataset``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
