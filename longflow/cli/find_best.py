"""``longflow_find_best``: choose the model to predict with on the cross-validation."""

import argparse
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.paths import DatasetPaths, resolve_dataset_name
from longflow.report.tables import FEWEST_SUBJECTS, counted, short_name, span_or_nothing
from longflow.tasks.translate.best_tables import show_best_translation

EXAMPLE = """
longflow_find_best -d 101
"""

MOST_ROWS = 20


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_find_best",
        "Choose the model to predict with on the cross-validation, and write the choice down for longflow_predict. "
        "Forecasts: method, configuration, ensemble of two, reduction and shrinkage towards the last context image "
        "(LCI) by the lowest NRMSE. Segmentation: method and configuration by the highest mean Dice; no ensembles. "
        "Translation: method, network and configuration by the lowest MAE in the body, then solver and steps of the "
        "best flow on some validation pairs.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    flags.add_processes(result)
    return result


def work(options: argparse.Namespace) -> None:
    command.set_up_process()
    from longflow.data.dataset import read_description
    from longflow.tasks.forecast.best import find_best
    from longflow.tasks.segment.best import find_best_segmentation
    from longflow.tasks.translate.best import find_best_translation

    of_task = {
        "forecast": (find_best, _show),
        "segment": (find_best_segmentation, _show_segmentation),
        "translate": (find_best_translation, _show_translation),
    }
    paths = DatasetPaths(resolve_dataset_name(options.dataset))
    choose, show = of_task[read_description(paths.raw / "dataset.json").task]
    with progress_bar("Reading predictions") as progress:
        best = choose(paths, options.processes, progress)
    show(best)
    tables = [paths.best_table.name, *([paths.best_solvers.name] if best.get("solvers") else [])]
    command.console.print(f"Written: {paths.best}, {', '.join(tables)}", highlight=False)


def _show_translation(best: dict) -> None:
    show_best_translation(best, command.console)


def _show(best: dict) -> None:
    table = Table(
        title=f"{best['dataset']}: {best['targets']} validation targets of {best['subjects']} subjects, "
        f"fold{'s' if len(best['folds']) > 1 else ''} {', '.join(map(str, best['folds']))}",
        title_justify="left",
        caption="Forecast = LCI + s (prediction − LCI), with the best s of 0, 0.01, ..., 1.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("candidate", overflow="fold")
    for name in ("NRMSE", "of LCI", "s", "NRMSE, s = 1"):
        table.add_column(name, justify="right")
    for row in best["table"][:MOST_ROWS]:
        relative = "" if row["relative_to_lci"] is None else f"{row['relative_to_lci']:.3f} x"
        table.add_row(
            escape(short_name(row["candidate"]).replace(" + ", " +\n")),
            f"{row['nrmse']:.5f}",
            relative,
            f"{row['shrinkage']:.2f}",
            f"{row['nrmse_unshrunk']:.5f}",
            style="bold" if row["candidate"] == best["candidate"] else None,
        )
    command.console.print(table)
    if len(best["table"]) > MOST_ROWS:
        command.console.print(f"... and {len(best['table']) - MOST_ROWS} more in the file.")
    command.console.print(
        f"Chosen: [bold]{escape(short_name(best['candidate']))}[/] with s = {best['shrinkage']:.2f}; "
        f"NRMSE {best['nrmse']:.5f}, LCI {best['lci_nrmse']:.5f}.",
        highlight=False,
    )
    if best["nested"]:
        command.console.print(
            f"Chosen without the fold it is judged on: NRMSE {best['nested']['nrmse']:.5f}, "
            f"LCI {best['nested']['lci_nrmse']:.5f}. Still slightly optimistic: each fold's checkpoint was the best on "
            "its own validation targets. Only held-out subjects (imagesTs) are free of that.",
            highlight=False,
        )
    else:
        command.console.print(
            "With a single fold, choice and judgement rest on the same targets: the figure is slightly optimistic. "
            "Train further folds, or evaluate held-out subjects (imagesTs).",
            highlight=False,
        )


def _show_segmentation(best: dict) -> None:
    table = Table(
        title=f"{best['dataset']}: {counted(best['scans'], 'validation scan')} of "
        f"{counted(best['subjects'], 'subject')}, "
        f"fold{'s' if len(best['folds']) > 1 else ''} {', '.join(map(str, best['folds']))}",
        title_justify="left",
        caption="Mean over structures, then over subjects; 95 % intervals over subjects.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("model", overflow="fold")
    for name in ("Dice", "95 % interval", "difference\nto the best", "95 % interval"):
        table.add_column(name, justify="right")
    for row in best["table"][:MOST_ROWS]:
        chosen = row["candidate"] == best["candidate"]
        table.add_row(
            escape(short_name(row["candidate"])),
            f"{row['dice']:.4f}",
            span_or_nothing(row["from"], row["to"], ".4f"),
            "" if chosen else f"{row['difference_to_best']:+.4f}",
            "" if chosen else span_or_nothing(row["difference_from"], row["difference_to"], "+.4f"),
            style="bold" if chosen else None,
        )
    command.console.print(table)
    if len(best["table"]) > MOST_ROWS:
        command.console.print(f"... and {len(best['table']) - MOST_ROWS} more in the file.")
    command.console.print(
        f"Chosen: [bold]{escape(short_name(best['candidate']))}[/], Dice {best['dice']:.4f}. {_how_sure(best)}",
        highlight=False,
    )


def _how_sure(best: dict) -> str:
    """What the choice of a segmentation rests on, in words."""
    if len(best["table"]) == 1:
        return "It is the only model with these folds; nothing was compared."
    if best["subjects"] == 1:
        return "One subject tells models apart by chance as easily as by merit: train further folds."
    few = " Over so few subjects they are too narrow." if best["subjects"] < FEWEST_SUBJECTS else ""
    return (
        f"Where the interval of a difference holds 0, the data do not tell these models apart.{few} The figure is that "
        "of the best of several, hence slightly optimistic; held-out subjects (imagesTs) are free of that."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_find_best``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
