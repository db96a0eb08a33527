"""``longflow_evaluate``: forecasts and translations against acquired scans; label maps against the truth."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.errors import NotFoundError
from longflow.paths import DatasetPaths, resolve_dataset_name
from longflow.report.tables import span
from longflow.tasks.segment.tables import show_segmentations
from longflow.tasks.translate.tables import show_translations

if TYPE_CHECKING:
    from longflow.data.dataset import DatasetDescription

EXAMPLE = """
longflow_evaluate -d 101 -i out
longflow_evaluate -d 101 -i out -r follow_up_scans
longflow_evaluate -d 103 -i labels_out
longflow_evaluate -d 104 -i out
longflow_evaluate -d 104 -i back -r out
"""

#: (name in the results, heading, decimals, scale)
SHOWN = (
    ("nrmse", "NRMSE", 4, 1),
    ("psnr", "PSNR [dB]", 2, 1),
    ("ssim", "SSIM [%]", 2, 100),
    ("mae", "MAE\n[input units]", 4, 1),
    ("changed_nrmse", "NRMSE,\nchanged region", 4, 1),
    ("skill", "skill", 3, 1),
)
METHOD_NAMES = {"forecast": "forecast", "lci": "LCI", "context_mean": "context mean"}
FIGURE = Path("figures") / "forecasts.png"
TRANSLATION_FIGURE = FIGURE.with_name("translations.png")


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_evaluate",
        "Forecasts: compare them with the scans that were acquired, beside the last context image (LCI) and the mean "
        "of the context scans. Segmentations (task 'segment'): overlap with the true label maps, consistency over a "
        "subject's scans beside the truth's, volumes over time. Translations (task 'translate'): compare them with the "
        "scans of the same subject and time in the wanted phase, beside the untranslated ones; of translations there "
        "and back, -r names the folder of those there. Writes metrics.csv, metrics.json and figures into the folder of "
        "the predictions.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    result.add_argument("-i", "--input", required=True, type=Path, help="folder that longflow_predict wrote")
    result.add_argument(
        "-r",
        "--reference",
        type=Path,
        nargs="+",
        default=[],
        help="folders with acquired scans (or true label maps), searched before the dataset's targetsTs, imagesTs and "
        "imagesTr (or labelsTs and labelsTr)",
    )
    flags.add_processes(result)
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.data.dataset import read_description

    raw = DatasetPaths(resolve_dataset_name(options.dataset)).raw
    if missing := [str(folder) for folder in options.reference if not folder.is_dir()]:
        raise NotFoundError(f"The folder of -r does not exist: {', '.join(missing)}.")
    description = read_description(raw / "dataset.json")
    OF_TASK[description.task](options, raw, description)


def _evaluate_forecasts(options: argparse.Namespace, raw: Path, description: "DatasetDescription") -> None:
    from longflow.tasks.forecast.evaluation import evaluate_folder
    from longflow.tasks.forecast.figures import draw_forecasts
    from longflow.tasks.forecast.pairs import dataset_folders

    folders = [*options.reference, *dataset_folders(raw)]
    with progress_bar("Evaluating") as progress:
        results = evaluate_folder(options.input, folders, description, options.processes, progress)
    draw_forecasts(options.input, folders, description, options.input / FIGURE)
    _show(results)
    command.console.print(f"Written: metrics.csv, metrics.json and {FIGURE} in {options.input}", highlight=False)


def _evaluate_segmentations(options: argparse.Namespace, raw: Path, description: "DatasetDescription") -> None:
    from longflow.tasks.segment.evaluation import (
        METRICS_JSON,
        PAIRS_CSV,
        SCANS_CSV,
        SUBJECTS_CSV,
        evaluate_segmentations,
    )
    from longflow.tasks.segment.figures import draw_segmentations
    from longflow.tasks.segment.label_maps import truth_folders

    references = [*options.reference, *truth_folders(raw)]
    with progress_bar("Evaluating") as progress:
        results, rows = evaluate_segmentations(options.input, references, raw, description, options.processes, progress)
    figures = draw_segmentations(results, rows.scans, rows.pairs, rows.subjects, options.input / FIGURE.parent)
    show_segmentations(results, command.console)
    written = [SCANS_CSV, PAIRS_CSV, SUBJECTS_CSV, METRICS_JSON, *(f"{FIGURE.parent}/{name}" for name in figures)]
    command.console.print(f"Written: {', '.join(written)} in {options.input}", highlight=False)


def _evaluate_translations(options: argparse.Namespace, raw: Path, description: "DatasetDescription") -> None:
    from longflow.tasks.forecast.pairs import dataset_folders
    from longflow.tasks.translate.evaluation import evaluate_translations
    from longflow.tasks.translate.figures import draw_translations

    folders = [*options.reference, *dataset_folders(raw)]
    with progress_bar("Evaluating") as progress:
        results, rows = evaluate_translations(options.input, folders, description, options.processes, progress)
    draw_translations(rows, options.input, folders, description, options.input / TRANSLATION_FIGURE)
    show_translations(results, command.console)
    command.console.print(
        f"Written: metrics.csv, metrics.json and {TRANSLATION_FIGURE} in {options.input}", highlight=False
    )


OF_TASK = {
    "forecast": _evaluate_forecasts,
    "segment": _evaluate_segmentations,
    "translate": _evaluate_translations,
}


def _show(results: dict[str, Any]) -> None:
    overall = results["overall"]
    command.console.print(_overall_table(overall, ", ".join(results["methods"])))
    if len(results["by_horizon"]) > 1:
        command.console.print(_horizon_table(results["by_horizon"], results["time_unit"]))
    better = overall["better_than_lci"]
    if better["share"] is not None:
        command.console.print(
            f"Better than LCI in {better['better']} of {better['targets']} targets ({better['share']:.0%}"
            + (f", interval {span(better['interval'], '.0%')}" if better["interval"] else "")
            + ").",
            highlight=False,
        )
    _show_difference(overall)
    if undefined := [
        f"{' '.join(heading.split())} of {label}: {overall[method][key]['undefined']}"
        for method, label in METHOD_NAMES.items()
        for key, heading, *_ in SHOWN
        if overall[method][key]["undefined"]
    ]:
        command.console.print(
            f"Targets left out because a number is not defined: {'; '.join(undefined)}.", highlight=False
        )


def _overall_table(overall: dict[str, Any], forecast_name: str) -> Table:
    """A row for each number, a column for each method and for the forecast's difference to LCI."""
    title = f"{overall['targets']} targets of {overall['subjects']} subjects: mean over subjects, 95 % interval"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column(escape(f"forecast\n({forecast_name})"), justify="right", style="bold")
    for heading in ("last context\nimage (LCI)", "context\nmean", "forecast\n− LCI"):
        table.add_column(heading, justify="right")
    for key, heading, decimals, scale in SHOWN:
        cells = [_cell(overall[method][key], decimals, scale) for method in METHOD_NAMES]
        table.add_row(escape(heading), *cells, _cell(overall["difference_to_lci"][key], decimals, scale, sign="+"))
    return table


def _horizon_table(bins: list[dict[str, Any]], time_unit: str) -> Table:
    """A row for each bin of horizons."""
    table = Table(
        title="By horizon: mean over subjects", title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True
    )
    table.add_column(f"horizon\n\\[{time_unit}]", justify="right", no_wrap=True)
    table.add_column("targets", justify="right")
    table.add_column("NRMSE\nforecast", justify="right", style="bold", no_wrap=True)
    for heading in ("\nLCI", "context\nmean", "\nskill", "better\nthan LCI"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part in bins:
        low, high, better = part["from"], part["to"], part["better_than_lci"]["share"]
        cells = [part[method]["nrmse"]["mean"] for method in METHOD_NAMES]
        table.add_row(
            f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}",
            str(part["targets"]),
            *(_number(value, ".4f") for value in cells),
            _number(part["forecast"]["skill"]["mean"], ".3f"),
            _number(better, ".0%"),
        )
    return table


def _cell(number: dict[str, Any], decimals: int, scale: float, sign: str = "") -> str:
    if number["mean"] is None:
        return "not defined"
    form = f"{sign}.{decimals}f"
    text = format(scale * number["mean"], form)
    if number["interval"]:
        text += f"\n{span([scale * value for value in number['interval']], form)}"
    return text


def _number(value: float | None, form: str) -> str:
    return "not defined" if value is None else format(value, form)


def _show_difference(overall: dict[str, Any]) -> None:
    difference = overall["difference_to_lci"]["nrmse"]
    if difference["mean"] is None:
        return
    text = f"NRMSE of the forecast minus that of LCI: {difference['mean']:+.4f}"
    if difference["interval"]:
        low, high = difference["interval"]
        verdict = "better than LCI" if high < 0 else "worse than LCI" if low > 0 else "no difference is within it"
        text += f" (95 % interval over subjects {span([low, high], '+.4f')}: {verdict})"
    command.console.print(f"{text}.", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_evaluate``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
