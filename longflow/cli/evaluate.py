"""longflow_evaluate: forecasts against acquired scans, beside the last context image and the context mean."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longflow.cli.command import Parser, console, run

#: (name in the results, heading, decimals, scale)
SHOWN = (
    ("nrmse", "NRMSE", 4, 1),
    ("psnr", "PSNR [dB]", 2, 1),
    ("ssim", "SSIM [%]", 2, 100),
    ("mae", "MAE", 4, 1),
    ("changed_nrmse", "NRMSE changed", 4, 1),
    ("skill", "skill", 3, 1),
)
METHOD_NAMES = {"forecast": "forecast", "lci": "last context image", "context_mean": "context mean"}
FIGURE = Path("figures") / "forecasts.png"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(
        "longflow_evaluate",
        "Compare forecasts with the scans that were acquired, beside the last context image (LCI) and the mean of the "
        "context scans. Writes metrics.csv, metrics.json and a figure into the folder of the forecasts.",
        """longflow_evaluate -d 101 -i out
        longflow_evaluate -d 101 -i out -r follow_up_scans""",
    )
    parser.add_argument("-d", "--dataset", required=True, help="101 or Dataset101_Name")
    parser.add_argument("-i", "--input", required=True, type=Path, help="folder that longflow_predict wrote")
    parser.add_argument(
        "-r",
        "--reference",
        type=Path,
        nargs="+",
        default=[],
        help="folders with acquired scans, searched before the dataset's targetsTs, imagesTs and imagesTr",
    )
    parser.add_argument("-np", "--processes", type=int, help="worker processes (default: one for each core)")
    return run(parser, work, arguments)


def work(options: argparse.Namespace) -> None:
    from longflow.cli.progress import progress_bar
    from longflow.data.dataset import read_description
    from longflow.errors import NotFoundError
    from longflow.evaluation.evaluate import evaluate_folder
    from longflow.evaluation.pairs import dataset_folders
    from longflow.paths import DatasetPaths, resolve_dataset_name
    from longflow.report.forecasts import draw_forecasts

    raw = DatasetPaths(resolve_dataset_name(options.dataset)).raw
    if missing := [str(folder) for folder in options.reference if not folder.is_dir()]:
        raise NotFoundError(f"The folder of -r does not exist: {', '.join(missing)}.")
    folders = [*options.reference, *dataset_folders(raw)]
    description = read_description(raw / "dataset.json")
    with progress_bar("Evaluating") as progress:
        results = evaluate_folder(options.input, folders, description, options.processes, progress)
    draw_forecasts(options.input, folders, description, options.input / FIGURE)
    _show(results)
    console.print(f"Written: metrics.csv, metrics.json and {FIGURE} in {options.input}", highlight=False)


def _show(results: dict[str, Any]) -> None:
    overall = results["overall"]
    name = ", ".join(results["methods"])
    title = f"{overall['targets']} targets of {overall['subjects']} subjects"
    console.print(_table(f"{title} (mean over subjects, 95 % interval)", overall, name, intervals=True))
    for horizon in results["by_horizon"] if len(results["by_horizon"]) > 1 else []:
        low, high = horizon["from"], horizon["to"]
        span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        title = f"horizon {span} {results['time_unit']}: {horizon['targets']} targets of {horizon['subjects']} subjects"
        console.print(_table(title, horizon, name, intervals=False))
    _show_difference(overall)
    if undefined := {
        f"{heading} of {METHOD_NAMES[method]}: {overall[method][key]['undefined']}"
        for method in METHOD_NAMES
        for key, heading, *_ in SHOWN
        if overall[method][key]["undefined"]
    }:
        console.print(f"Targets left out because a number is not defined: {'; '.join(sorted(undefined))}.")


def _table(title: str, summary: dict[str, Any], forecast_name: str, intervals: bool):
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("")
    for _, heading, *_ in SHOWN:
        table.add_column(heading, justify="right")
    table.add_column("better than LCI", justify="right")
    for method, label in METHOD_NAMES.items():
        cells = [_cell(summary[method][key], decimals, scale, intervals) for key, _, decimals, scale in SHOWN]
        is_forecast = method == "forecast"
        table.add_row(
            escape(f"{label} ({forecast_name})") if is_forecast else label,
            *cells,
            _share(summary["better_than_lci"], intervals) if is_forecast else "",
            style="bold" if is_forecast else None,
        )
    return table


def _cell(number: dict[str, Any], decimals: int, scale: float, intervals: bool) -> str:
    if number["mean"] is None:
        return "not defined"
    text = f"{scale * number['mean']:.{decimals}f}"
    if intervals and number["interval"]:
        low, high = (scale * value for value in number["interval"])
        text += f"\n{low:.{decimals}f} to {high:.{decimals}f}"
    return text


def _share(better: dict[str, Any], intervals: bool) -> str:
    if better["share"] is None:
        return "not defined"
    text = f"{better['better']} of {better['targets']} ({better['share']:.0%})"
    if intervals and better["interval"]:
        text += f"\n{better['interval'][0]:.0%} to {better['interval'][1]:.0%}"
    return text


def _show_difference(overall: dict[str, Any]) -> None:
    difference = overall["difference_to_lci"]["nrmse"]
    if difference["mean"] is None:
        return
    text = f"NRMSE of the forecast minus that of LCI: {difference['mean']:+.4f}"
    if difference["interval"]:
        low, high = difference["interval"]
        sure = "better than LCI" if high < 0 else "worse than LCI" if low > 0 else "the interval includes no difference"
        text += f" (95 % interval over subjects {low:+.4f} to {high:+.4f}: {sure})"
    console.print(f"{text}.", highlight=False)
