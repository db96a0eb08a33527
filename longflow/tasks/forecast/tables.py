"""Tables of forecasts: what ``longflow_evaluate`` and ``longflow_find_best`` show."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longflow.evaluation.advantage import advantage_in_words
from longflow.evaluation.metric import Metric, metrics_of
from longflow.evaluation.significance import FEWEST_FOR_A_VERDICT
from longflow.report.tables import (
    MOST_ROWS,
    cell,
    counted,
    folds_in_words,
    mean_of,
    new_table,
    short_name,
    show_further_rows,
    span,
)
from longflow.tasks.forecast.comparison import ACQUIRED, FORECAST, verdict
from longflow.tasks.forecast.ladder import LCI, RUNG_NAMES, RUNGS
from longflow.tasks.forecast.task import TASK

#: own metrics of the table in this order; those of installed packages follow
SHOWN = ("nrmse", "psnr", "ssim", "mae", "changed_nrmse", "skill")
METHOD_NAMES = {FORECAST: "forecast", **RUNG_NAMES}

#: numbers of a structure: heading, and scale and form of the number
STRUCTURE_COLUMNS = {
    "volume_ml": ("volume\n[ml]", 1, ".4g"),
    "volume_error_ml": ("|error|\n[ml]", 1, ".3g"),
    "relative_volume_error": ("|error|\n[%]", 100, ".1f"),
    "dice": ("Dice", 1, ".3f"),
    "volume_change": ("share lost since\nlast scan [%]", 100, ".1f"),
    "volume_change_error": ("|error|\n[points]", 100, ".1f"),
}


def show_forecasts(results: Mapping[str, Any], console: Console) -> None:
    """Print the tables of an evaluated folder of forecasts.

    :param results: content of metrics.json.
    """
    overall, metrics = results["overall"], _shown_metrics(results["overall"])
    console.print(_overall_table(overall, metrics, ", ".join(results["methods"])))
    console.print(_ladder_table(overall))
    if len(results["by_horizon"]) > 1:
        console.print(_horizon_table(results["by_horizon"], results["time_unit"]))
    _show_against(LCI, overall["better_than_lci"], overall["difference_to_lci"], console)
    _show_null(overall[FORECAST], console)
    best = overall["best_rung"]
    if best["name"] != LCI:
        _show_against(best["name"], best["better"], best["difference"], console)
    if undefined := [
        f"{' '.join(metric.title().split())} of {label}: {overall[method][metric.name]['undefined']}"
        for method, label in METHOD_NAMES.items()
        for metric in metrics
        if method in overall and overall[method][metric.name]["undefined"]
    ]:
        text = escape("; ".join(undefined))
        console.print(f"Targets excluded because a number is not defined: {text}.", highlight=False)
    if "samples" in results:
        console.print(_samples_table(results["samples"], results["time_unit"]))
    if "structures" in results:
        _show_structures(results["structures"], console)


def _show_structures(results: Mapping[str, Any], console: Console) -> None:
    """Print what the segmented scans say, and what their reference is.

    :param results: content of metrics.json under ``structures``.
    """
    console.print(_structure_table(results))
    if "intervals" in results:
        console.print(_interval_table(results["intervals"]))
    without = {name: one["targets"] - one["targets_with_labels"] for name, one in results["by_structure"].items()}
    if named := [f"{escape(name)} in {counted(number, 'target')}" for name, number in without.items() if number]:
        console.print(
            f"Without a label map: {', '.join(named)}. There the reference is the acquired scan, segmented by the same "
            "model: the numbers do not contain the segmenter's own error.",
            highlight=False,
        )
    if seen := results["subjects_of_segmenter_training"]:
        console.print(
            f"The segmenter was trained on {len(seen)} of the subjects: its own error is too small.", highlight=False
        )


def _samples_table(results: Mapping[str, Any], time_unit: str) -> Table:
    """A row for each bin of horizons, and for all: spread, its ratio to the error, and energy scores."""
    headings = ("targets", "NRMSE\nof the mean", "spread", "spread /\nerror", "energy\nscore", "mean ±\nusual SD")
    number = "" if results["number"] is None else f"{results['number']} "
    table = new_table(f"{number}samples, in units of the NRMSE", f"horizon [{time_unit}]", *headings)
    for part in [*(results["by_horizon"] if len(results["by_horizon"]) > 1 else []), results["overall"]]:
        low, high = part["from"], part["to"]
        table.add_row(
            f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}",
            str(part["targets"]),
            mean_of(part["nrmse"], ".4f"),
            mean_of(part["spread"], ".4f"),
            "–" if part["spread_skill"] is None else f"{part['spread_skill']:.2f}",
            mean_of(part["energy_score"], ".4f"),
            mean_of(part["gaussian_energy_score"], ".4f"),
        )
    return table


def _structure_table(results: Mapping[str, Any]) -> Table:
    """A section for each structure: reference, forecast, best rung, LCI, the acquired scan segmented, differences."""
    segmenter, rung = results["segmenter"], results["best_rung"]
    model = f"{segmenter['dataset']} {', '.join(segmenter['method'])} {', '.join(segmenter['configuration'])}"
    headings = [heading for heading, _, _ in STRUCTURE_COLUMNS.values()]
    table = new_table(f"Segmented by {model}: mean over subjects, 95 % interval", "structure", *headings)
    table.columns[0].no_wrap = True
    names = {"reference": "reference", **METHOD_NAMES, ACQUIRED: "acquired scan"}
    differences = (
        {"difference_to_lci": LCI} if rung == LCI else {"difference_to_best_rung": rung, "difference_to_lci": LCI}
    )
    for structure, one in results["by_structure"].items():
        table.add_row(escape(structure))
        for method in dict.fromkeys(("reference", FORECAST, rung, LCI, ACQUIRED)):
            if method in one:
                style = "bold" if method == FORECAST else None
                table.add_row(f"  {names[method]}", *_structure_cells(one[method]), style=style)
        for key, against in differences.items():
            table.add_row(f"  forecast − {RUNG_NAMES[against]}", *_structure_cells(one[key], "+"))
        table.add_section()
    return table


def _interval_table(intervals: Mapping[str, Any]) -> Table:
    """A row for each structure: how many intervals held, their width, and the CRPS next to the error of LCI."""
    headings = ("targets", "covered", "95 % interval", "width\n[ml]", "CRPS\n[ml]", "|error| of LCI\n[ml]")
    table = new_table(f"Intervals of volumes, level {intervals['level']:.0%}", "structure", *headings)
    for name, one in intervals["by_structure"].items():
        coverage = one["coverage"]
        table.add_row(
            escape(name),
            str(coverage["targets"]),
            "not defined" if coverage["share"] is None else f"{coverage['share']:.0%}",
            span(coverage["interval"], ".0%") if coverage["interval"] else "",
            *(mean_of(one[number], ".3g") for number in ("width_ml", "crps_ml", "lci_error_ml")),
        )
    return table


def _structure_cells(numbers: Mapping[str, Any], sign: str = "") -> list[str]:
    """A cell for each column; empty where there is no such number."""
    cells = []
    for name, (_, scale, form) in STRUCTURE_COLUMNS.items():
        if name not in numbers:
            cells.append("")
            continue
        mean, interval = numbers[name]["mean"], numbers[name]["interval"] or []
        scaled = {"mean": None if mean is None else scale * mean, "interval": [scale * limit for limit in interval]}
        cells.append(cell(scaled, f"{sign}{form}"))
    return cells


def _shown_metrics(overall: Mapping[str, Any]) -> list[Metric]:
    """Metrics with a heading that the results hold, in the order of the table."""
    known = {metric.name: metric for metric in metrics_of(TASK) if metric.heading}
    names = [*SHOWN, *(name for name in known if name not in SHOWN)]
    return [known[name] for name in names if name in overall["forecast"]]


def _overall_table(overall: Mapping[str, Any], metrics: Sequence[Metric], forecast_name: str) -> Table:
    """A row for each number; columns for the forecast, the best rung and LCI, and its differences to both."""
    title = f"{overall['targets']} targets of {overall['subjects']} subjects: mean over subjects, 95 % interval"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column(escape(f"forecast\n({forecast_name})"), justify="right", style="bold")
    best = overall["best_rung"]
    compared = {LCI: ("last context\nimage (LCI)", overall["difference_to_lci"])}
    if best["name"] != LCI:
        compared = {best["name"]: (f"best rung\n({RUNG_NAMES[best['name']]})", best["difference"]), **compared}
    for heading, _ in compared.values():
        table.add_column(heading, justify="right")
    for rung in compared:
        table.add_column(f"forecast\n− {RUNG_NAMES[rung]}", justify="right")
    for metric in metrics:
        cells = [_cell(overall[method][metric.name], metric) for method in (FORECAST, *compared)]
        cells += [_cell(difference[metric.name], metric, sign="+") for _, difference in compared.values()]
        table.add_row(escape(metric.title()), *cells)
    if metrics and best["name"] != LCI and best["skill_against_best_rung"]["mean"] is not None:
        skill = _cell(best["skill_against_best_rung"], next(one for one in metrics_of(TASK) if one.name == "skill"))
        table.add_row("skill against\nthe best rung", skill)
    return table


def _ladder_table(overall: Mapping[str, Any]) -> Table:
    """A row for each forecast without training, best first; those that lack a target come last."""
    table = new_table("Without training (the ladder)", "rung", "NRMSE", "of LCI", "NRMSE,\nchanged region", "targets")
    best, lci = overall["best_rung"]["name"], overall[LCI]["nrmse"]["mean"]
    found = {rung: overall[rung]["nrmse"] for rung in RUNGS if rung in overall}
    for rung in sorted(found, key=lambda one: (one != best, found[one]["mean"] is None, found[one]["mean"])):
        mean, changed = found[rung]["mean"], overall[rung].get("changed_nrmse", {"mean": None})["mean"]
        table.add_row(
            RUNG_NAMES[rung] + (" (best)" if rung == best else ""),
            _number(mean, ".4f"),
            _number(mean / lci if mean is not None and lci else None, ".3f"),
            _number(changed, ".4f"),
            str(overall["targets_of_rung"][rung]),
            style="bold" if rung == best else None,
        )
    return table


def _horizon_table(bins: Sequence[Mapping[str, Any]], time_unit: str) -> Table:
    """A row for each bin of horizons."""
    table = Table(
        title="By horizon: mean over subjects", title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True
    )
    table.add_column(f"horizon\n\\[{time_unit}]", justify="right", no_wrap=True)
    table.add_column("targets", justify="right")
    table.add_column("NRMSE\nforecast", justify="right", style="bold", no_wrap=True)
    best = bins[0]["best_rung"]["name"]
    methods = (FORECAST, *dict.fromkeys((best, LCI)))
    against = RUNG_NAMES[best]
    for heading in (*(f"\n{RUNG_NAMES[rung]}" for rung in methods[1:]), "\nskill", f"better than\n{against}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part in bins:
        low, high, better = part["from"], part["to"], part["best_rung"]["better"]["share"]
        cells = [part[method]["nrmse"]["mean"] for method in methods]
        table.add_row(
            f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}",
            str(part["targets"]),
            *(_number(value, ".4f") for value in cells),
            _number(part["forecast"]["skill"]["mean"], ".3f"),
            _number(better, ".0%"),
        )
    return table


def _cell(number: Mapping[str, Any], metric: Metric, sign: str = "") -> str:
    if number["mean"] is None:
        return "not defined"
    form = f"{sign}{metric.format}"
    text = format(metric.scale * number["mean"], form)
    if number["interval"]:
        text += f"\n{span([metric.scale * value for value in number['interval']], form)}"
    return text


def _number(value: float | None, form: str) -> str:
    return "not defined" if value is None else format(value, form)


def _show_against(rung: str, better: Mapping[str, Any], differences: Mapping[str, Any], console: Console) -> None:
    """Print in how many targets the forecast is better than a rung, and the difference with its verdict."""
    name = RUNG_NAMES[rung]
    if better["share"] is not None:
        console.print(
            f"Better than {name} in {better['better']} of {better['targets']} targets ({better['share']:.0%}"
            + (f", interval {span(better['interval'], '.0%')}" if better["interval"] else "")
            + ").",
            highlight=False,
        )
    difference = differences["nrmse"]
    if difference["mean"] is None:
        return
    text = f"NRMSE of the forecast minus that of {name}: {difference['mean']:+.4f}"
    if interval := difference["interval"]:
        words = {
            "better": f"better than {name}",
            "worse": f"worse than {name}",
            "tie": f"a tie with {name}",
            None: f"too few subjects for a verdict, which takes {FEWEST_FOR_A_VERDICT}",
        }
        test = f"p = {difference['p']:.2g}: {words[verdict(difference)]}"
        text += f" (95 % interval over subjects {span(interval, '+.4f')}; sign-flip test {test})"
    console.print(f"{text}.", highlight=False)


def _show_null(forecast: Mapping[str, Any], console: Console) -> None:
    """Print what an image has in the changed region that removes noise and forecasts no change."""
    found, null = (forecast.get(name, {}).get("mean") for name in ("changed_nrmse", "changed_null"))
    if found is not None and null is not None:
        console.print(
            f"Changed region: NRMSE of the forecast {found:.4f}; LCI without its noise, a forecast of no change, would "
            f"have {null:.4f}.",
            highlight=False,
        )


def show_best(best: Mapping[str, Any], console: Console) -> None:
    """Print the candidates that were compared, and the choice.

    :param best: content of best.json.
    """
    rung = best["best_rung"] != LCI
    console.print(_candidate_table(best))
    show_further_rows(best["table"], console)
    console.print(
        f"Chosen: [bold]{escape(short_name(best['candidate']))}[/] with s = {best['shrinkage']:.2f}; "
        f"NRMSE {best['nrmse']:.5f}, LCI {best['lci_nrmse']:.5f}"
        + (f", best rung without training ({best['best_rung']}) {best['best_rung_nrmse']:.5f}." if rung else "."),
        highlight=False,
    )
    if best["nested"]:
        text = (
            f"Chosen without the fold it is judged on: NRMSE {best['nested']['nrmse']:.5f}, "
            f"LCI {best['nested']['lci_nrmse']:.5f}. It differs by {best['nested']['optimism']:+.5f} from the NRMSE of "
            "the same choice made on all targets. Still slightly optimistic: each fold's checkpoint was the best on "
            "its own validation targets. Only held-out subjects (imagesTs) are free of that."
        )
    else:
        text = (
            "Without subjects of another fold, choice and judgement rest on the same targets: the figure is "
            "slightly optimistic. Train further folds, or evaluate held-out subjects (imagesTs)."
        )
    console.print(text, highlight=False)
    if best["nrmse"] < best["best_rung_nrmse"]:  # else the choice is the rung itself
        named = RUNG_NAMES.get(best["best_rung"], best["best_rung"])
        console.print(advantage_in_words(best["advantage"], named), highlight=False)
    if best.get("average_of_folds"):
        _show_average(best, console)
    if best.get("context_rules"):
        _show_rules(best, console)
    if best.get("solvers"):
        _show_solvers(best["solvers"], (best["solver"], best["steps"]), console)


def _show_average(best: Mapping[str, Any], console: Console) -> None:
    """Print how the shrinkage of single folds was corrected for their average."""
    average = best["average_of_folds"]
    bound = "" if average["measured_on"] == "imagesTs" else ", where folds agree more, so at least"
    console.print(
        f"longflow_predict averages {len(best['folds'])} folds, so s = {best['shrinkage']:.2f} and not "
        f"{average['shrinkage_of_a_fold']:.2f}, which fits one fold: {average['own_share']:.0%} of the squared change "
        f"in a forecast is a fold's own (measured on {counted(average['forecasts'], 'forecast')} of "
        f"{average['measured_on']}{bound}). Expected NRMSE: {average['nrmse']:.5f}.",
        highlight=False,
    )


def _show_rules(best: Mapping[str, Any], console: Console) -> None:
    """Print the context rules that were compared, and the choice."""
    rules = best["context_rules"]
    errors = ", ".join(f"{row['rule']} {row['nrmse']:.5f}" for row in rules["table"])
    console.print(
        f"Context rule: {best['context_rule']}. NRMSE on {counted(rules['targets'], 'validation target')} with more "
        f"scans than the model takes: {errors} (LCI {rules['lci_nrmse']:.5f}).",
        highlight=False,
    )


def _show_solvers(solvers: Mapping[str, Any], chosen: tuple[str, int], console: Console) -> None:
    """Print the solvers that were compared, the choice, and its difference to the forecasts that were judged above."""
    nrmse = {(row["solver"], row["steps"]): row["nrmse"] for row in solvers["table"]}
    table = new_table("Solvers of the chosen model", "solver (steps)", "evaluations", "seconds", "NRMSE")
    for row in solvers["table"]:
        setting = row["solver"], row["steps"]
        table.add_row(
            f"{row['solver']} ({row['steps']})",
            str(row["evaluations"]),
            f"{row['seconds']:.2f}",
            f"{row['nrmse']:.5f}",
            style="bold" if setting == chosen else None,
        )
    console.print(table)
    validated = tuple(solvers["validated"])
    text = (
        f"longflow_predict uses {chosen[0]} ({chosen[1]}): the cheapest whose NRMSE is within 1 % of the skill of the "
        f"lowest, on {counted(solvers['targets'], 'validation target')} of {counted(solvers['subjects'], 'subject')} "
        f"({solvers['device']}, patches without overlap; LCI {solvers['lci_nrmse']:.5f})."
    )
    if validated != chosen and validated in nrmse:
        text += (
            f" Models were compared as they were validated, with {validated[0]} ({validated[1]}): on these targets the "
            f"NRMSE of the chosen solver differs from it by {nrmse[chosen] - nrmse[validated]:+.5f}."
        )
    console.print(text, highlight=False)


def _candidate_table(best: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"{best['dataset']}: {best['targets']} validation targets of {best['subjects']} subjects, "
        f"{folds_in_words(best['folds'])}",
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
    return table
