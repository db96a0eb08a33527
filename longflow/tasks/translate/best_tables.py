"""What ``longflow_find_best`` shows of translations: models, untranslated scans, and solvers of the best flow."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longflow.evaluation.advantage import advantage_in_words
from longflow.report.tables import (
    MOST_ROWS,
    counted,
    few_subjects,
    folds_in_words,
    new_table,
    short_name,
    show_further_rows,
    span_or_nothing,
)
from longflow.tasks.translate.tables import unit_of

Best = Mapping[str, Any]

#: (name, heading, form) of the numbers of solvers; MFM's own are shown where they are defined
_OF_SOLVERS = (
    ("body_mae", "MAE in\nthe body", ".4g"),
    ("mae", "MAE,\nwhole image", ".4g"),
    ("ssim_mfm", "SSIM\nas in MFM", ".4f"),
    ("psnr_mfm", "PSNR\nas in MFM", ".2f"),
    ("ssim", "SSIM", ".4f"),
    ("psnr", "PSNR [dB]", ".2f"),
    ("seconds_per_slice", "seconds\nper slice", ".3g"),
)


def show_best(best: Best, console: Console) -> None:
    """Print the tables of models and solvers, and the basis of the choice.

    :param best: content of best.json.
    """
    console.print(_model_table(best))
    show_further_rows(best["table"], console)
    if best["solvers"]:
        for phase in dict.fromkeys(row["target_phase"] for row in best["solvers"]["table"]):
            console.print(_solver_table(best, phase))
    for line in _remarks(best):
        console.print(line, highlight=False)


def _model_table(best: Best) -> Table:
    """A row for each model and for the untranslated scans."""
    phases = [name.removeprefix("body_mae to ") for name in best["table"][0] if name.startswith("body_mae to ")]
    table = new_table(
        f"{best['dataset']}: {counted(best['translations'], 'validation translation')} of "
        f"{counted(best['subjects'], 'subject')}, {folds_in_words(best['folds'])}: MAE in the body [{unit_of(best)}], "
        f"mean over subjects",
        *("model", "MAE", "95 % interval", *(f"to {phase}" for phase in phases)),
        *("difference\nto the best", "95 % interval", "p"),
    )
    for row in best["table"][:MOST_ROWS]:
        chosen = row["candidate"] == best["candidate"]
        table.add_row(
            escape(_name(row["candidate"])),
            f"{row['body_mae']:.4g}",
            span_or_nothing(row["from"], row["to"], ".4g"),
            *(_number(row[f"body_mae to {phase}"], ".4g") for phase in phases),
            "" if chosen else f"{row['difference_to_best']:+.4g}",
            "" if chosen else span_or_nothing(row["difference_from"], row["difference_to"], "+.4g"),
            "" if chosen else format(row["p"], ".2g"),
            style="bold" if chosen else None,
        )
    return table


def _solver_table(best: Best, phase: str) -> Table:
    """Table 5 of MFM for one direction."""
    solvers = best["solvers"]
    rows = [row for row in solvers["table"] if row["target_phase"] == phase]
    numbers = [one for one in _OF_SOLVERS if any(row[one[0]] is not None for row in rows)]
    table = new_table(
        f"{short_name(solvers['candidate'])}, to {phase}: solvers",
        *("solver (steps)", "evaluations\nof the network", *(heading for _, heading, _ in numbers)),
    )
    for row in rows:
        of_best = row["solver"] is not None and (row["solver"], row["steps"]) == (solvers["solver"], solvers["steps"])
        table.add_row(
            f"{row['solver']} ({row['steps']})" if row["solver"] else "untranslated",
            str(row["evaluations"]),
            *(_number(row[name], form) for name, _, form in numbers),
            style="bold" if of_best else None,
        )
    return table


def _remarks(best: Best) -> list[str]:
    """The choice, its basis, and how far its figures can be trusted."""
    unit, solvers = unit_of(best), best["solvers"]
    name = escape(short_name(best["candidate"]))
    used = f" with {best['solver']} ({best['steps']}), which longflow_predict uses now," if best["solver"] else ","
    remarks = [
        f"Chosen: [bold]{name}[/]{used} MAE in the body {best['body_mae']:.4g} {unit} as validated; untranslated scans "
        f"{best['input_body_mae']:.4g} {unit}."
    ]
    remarks.append(advantage_in_words(best["advantage"], "the untranslated scan"))
    if best["body_mae"] >= best["input_body_mae"]:
        remarks.append("[bold]No model is better than the untranslated scans.[/] Train longer, or look at the images.")
    if solvers and not best["solver"] and solvers["candidate"] in best["candidate"].split(" + "):
        remarks.append(
            "An ensemble is used with the solvers with which its models were validated. The table of solvers is that "
            "of its flow alone; another one is used with --solver and --steps."
        )
    if solvers:
        fewest, most = solvers["slices"]
        slices = f"the {fewest} middle slices" if fewest == most else f"the {fewest} to {most} middle slices"
        remarks.append(
            f"Solvers were compared on {counted(solvers['pairs'], 'validation pair')}, both ways, {slices} of each, by "
            f"weights that were not trained on them ({solvers['device']}). Taken is the cheapest whose MAE in the "
            "body, mean of both directions, is within 1 % of the lowest."
        )
    if best["body_mae_of_solver"] is not None and [best["solver"], best["steps"]] != solvers["validated"]:
        name, steps = solvers["validated"]
        remarks.append(
            f"Models were compared as they were validated, with {name} ({steps}). On the same slices, the chosen "
            f"solver differs from it by {solvers['difference']:+.4g} {unit}: expect "
            f"{best['body_mae_of_solver']:.4g} {unit}."
        )
    if nested := best.get("nested"):  # not in records of earlier versions
        remarks.append(
            f"Chosen without the fold it is judged on: MAE in the body {nested['body_mae']:.4g} {unit}; the choice on "
            f"all subjects looks {nested['optimism']:+.4g} {unit} better."
        )
    chosen, judged = ("Model and solver were", "they are") if solvers else ("The model was", "it is")
    remarks.append(
        f"{chosen} chosen on the validation data on which {judged} judged: the figures are slightly optimistic. "
        "Held-out subjects (imagesTs) are free of that."
    )
    if few := few_subjects(best["subjects"]):
        remarks.append(few)
    return remarks


def _name(candidate: str) -> str:
    return "untranslated scans" if candidate == "input" else short_name(candidate)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
