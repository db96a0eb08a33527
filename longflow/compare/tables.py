"""The table of ``longflow_compare`` on screen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from longflow.report.tables import counted, few_subjects, new_table, span
from longflow.tasks.forecast.ladder import RUNG_NAMES

if TYPE_CHECKING:
    from longflow.compare.comparison import Comparison

#: number, heading, form, scale
ERRORS = (("nrmse", "NRMSE", ".4f", 1), ("ssim", "SSIM [%]", ".2f", 100), ("psnr", "PSNR [dB]", ".2f", 1))
NOTHING = "–"


def show_comparison(
    lines: Sequence[dict[str, Any]], comparison: "Comparison", console: Console, best_first: bool = True
) -> None:
    """Print errors, then costs. :param best_first: else in the requested order."""
    if not lines:
        console.print("There is no result: every variant failed.", highlight=False)
        return
    if best_first:
        lines = sorted(lines, key=lambda line: (line["nrmse"]["mean"] is None, line["nrmse"]["mean"]))
    runs = max(len(line["runs"]) for line in lines)
    subjects, targets = lines[0]["subjects"], lines[0]["targets"]
    title = (
        f"{comparison.dataset.name}: {counted(targets, 'target')} of {counted(subjects, 'subject')}, "
        f"{counted(runs, 'run')} of each; {comparison.budget.text}"
    )
    table = new_table(title, "variant", *(heading for _, heading, *_ in ERRORS), *_headings(lines))
    for line in lines:
        number = line["nrmse"]
        table.add_row(
            escape(line["variant"]),
            *(_with_deviation(line[number], form, scale) for number, _, form, scale in ERRORS),
            *(
                _number(difference["mean"], "+.4f") + _below(difference["interval"], "+.4f")
                for difference in (number["minus_lci"], number["minus_best_rung"])
            ),
            *(_number(better, ".0%") for better in (line["better_than_lci"], line["best_rung"]["better"])),
        )
    console.print(table)
    costs = new_table(
        "Costs (means over runs)", "variant", "parameters", "training", "steps", "looks", "GB", "a forecast"
    )
    for line in lines:
        cost = line["cost"]
        costs.add_row(
            escape(line["variant"]),
            _number(cost["parameters"], ",.0f"),
            _number(cost["seconds"], ".0f", " s"),
            _number(cost["iterations"], ".0f"),
            _number(cost["looks"], ".0f"),
            _number(cost["peak_memory"] and cost["peak_memory"] / 1e9, ".2f"),
            _number(cost["seconds_per_prediction"], ".2f", " s"),
        )
    console.print(costs)
    spread = "± standard deviation over folds and seeds; " if runs > 1 else ""
    over = "subjects and seeds" if len(comparison.seeds) > 1 else "subjects"
    console.print(
        f"Means over subjects; {spread}below a difference its 95 % interval over {over}; subjects are paired.",
        highlight=False,
    )
    if len(looks := {line["cost"]["looks"] for line in lines if line["cost"]["looks"]}) > 1:
        console.print(
            f"Looks: the weights of a variant are the best of {min(looks):.0f} to {max(looks):.0f} validations. The "
            "best of many is luckier on the validation targets than the best of few. For equal numbers of looks give "
            "the budget in steps (--iterations); targets on which nothing was chosen (-i) are free of it.",
            highlight=False,
        )
    for name in sorted({line["best_rung"]["name"] for line in lines}):
        own = [line for line in lines if line["best_rung"]["name"] == name]
        ties, value = (
            [one["variant"] for one in own if one["best_rung"]["verdict"] == "tie"],
            own[0]["best_rung"]["nrmse"],
        )
        text = f"Best forecast without training (best rung): {RUNG_NAMES[name]}, NRMSE {_number(value, '.4f')}."
        text += (
            " A tie with it, by the sign-flip test, corrected for the number of variants, and by the interval: "
            f"{escape(', '.join(ties))}."
            if ties
            else ""
        )
        console.print(text, highlight=False)
    if sentence := few_subjects(subjects):
        console.print(sentence, highlight=False)


def _headings(lines: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Name the columns of differences; where all variants have one best rung, it is named."""
    names = {line["best_rung"]["name"] for line in lines}
    rung = RUNG_NAMES[names.pop()] if len(names) == 1 else "best rung"
    return "NRMSE − LCI", f"NRMSE −\n{rung}", "better\nthan LCI", f"better than\n{rung}"


def _with_deviation(found: dict[str, Any], form: str, scale: float) -> str:
    if found["mean"] is None:
        return NOTHING
    text = format(scale * found["mean"], form)
    return text if found["sd"] is None else f"{text}\n± {scale * found['sd']:{form}}"


def _below(interval: Sequence[float] | None, form: str) -> str:
    return f"\n{span(interval, form)}" if interval else ""


def _number(value: float | None, form: str, unit: str = "") -> str:
    return NOTHING if value is None else f"{value:{form}}{unit}"
