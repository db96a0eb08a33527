"""Tables of segmentations: what ``longflow_evaluate`` and ``longflow_find_best`` show."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longflow.errors import first_few
from longflow.evaluation.metric import Metric, metrics_of
from longflow.evaluation.significance import FEWEST_FOR_A_VERDICT
from longflow.report.tables import (
    MOST_ROWS,
    Summary,
    cell,
    counted,
    few_subjects,
    folds_in_words,
    mean_of,
    new_table,
    short_name,
    show_further_rows,
    span,
    span_or_nothing,
)
from longflow.tasks.segment.keep_largest import FEWEST_SUBJECTS
from longflow.tasks.segment.task import TASK

Results = Mapping[str, Any]


def show_segmentations(results: Results, console: Console) -> None:
    """Print the tables of an evaluated folder of label maps, and remarks on what they do not show.

    :param results: the content of metrics.json.
    """
    console.print(_overlap_table(results))
    if any(one["lesions"] for one in results["by_structure"].values()):
        console.print(_lesion_table(results))
    if results["pairs"]:
        console.print(_consistency_table(results))
        console.print(_slope_table(results))
        console.print(_change_table(results))
    for line in _remarks(results):
        console.print(line, highlight=False)


def _overlap_table(results: Results) -> Table:
    """A row for each structure and one for their mean."""
    methods = f" ({', '.join(results['methods'])})" if results["methods"] else ""
    of = f"{counted(results['scans'], 'scan')} of {counted(results['subjects'], 'subject')}"
    title = f"{of}{methods}: mean over subjects, 95 % interval"
    metrics = [metric for metric in metrics_of(TASK) if metric.heading and metric.name in results["overall"]]
    table = new_table(title, "structure", *(metric.title() for metric in metrics))
    for name, one in results["by_structure"].items():
        table.add_row(escape(name), *_overlap_cells(one, metrics))
    if len(results["by_structure"]) > 1:
        table.add_section()
        table.add_row("mean over structures", *_overlap_cells(results["overall"], metrics), style="bold")
    return table


def _overlap_cells(numbers: Mapping[str, Summary], metrics: Sequence[Metric]) -> list[str]:
    return [cell(numbers[metric.name], metric.format) for metric in metrics]


def _lesion_table(results: Results) -> Table:
    table = new_table(
        "Connected pieces, as lesions are counted (any overlap counts): mean over subjects, 95 % interval",
        *("structure", "reference pieces\nper scan, median", "precision", "recall", "F1"),
    )
    for name, one in results["by_structure"].items():
        if lesions := one["lesions"]:
            cells = [cell(lesions[f"lesion_{number}"], ".3f") for number in ("precision", "recall", "f1")]
            table.add_row(escape(name), f"{lesions['median_number']:g}", *cells)
    return table


def _consistency_table(results: Results) -> Table:
    """STCS and ASPC of each structure: prediction, reference, their paired difference, and what it means."""
    table = new_table(
        f"Consistency over {counted(results['pairs'], 'pair')} of consecutive scans: mean over subjects, 95 % interval",
        *("structure", "", "prediction", "reference", "difference"),
    )
    table.add_column("the prediction is")
    for name, one in results["by_structure"].items():
        numbers = one["consistency"]
        for key, heading, form in (("stcs", "STCS", ".3f"), ("aspc", "ASPC [%]", ".2f")):
            table.add_row(
                escape(name) if key == "stcs" else "",
                escape(heading),
                mean_of(numbers[key], form),
                mean_of(numbers[f"true_{key}"], form),
                cell(numbers[f"{key}_difference"], f"+{form}"),
                (numbers["verdict"] or "").replace("; ", "\n") if key == "stcs" else "",
            )
    return table


def _slope_table(results: Results) -> Table:
    table = new_table(
        "Volumes over time: mean over subjects, weighted by the precision of their slopes, 95 % interval",
        *("structure", f"error of slope\n[ml / {results['time_unit']}]", "|error| / |reference|,\nmedian"),
    )
    for name, one in results["by_structure"].items():
        relative = one["trajectories"]["relative_slope_error"]
        table.add_row(
            escape(name),
            cell(one["trajectories"]["slope_error"], "+.2g"),
            "–" if relative["median"] is None else f"{relative['median']:.1%}",
        )
    return table


def _change_table(results: Results) -> Table:
    """How predicted and reference changes agree; limits of agreement with the outer ends of their intervals."""
    table = new_table(
        "Changes of volume between consecutive scans, 95 % interval",
        *("structure", "correlation", "reference /\npredicted", "bias [ml]", "limits of agreement\n[ml] (at most)"),
    )
    for name, one in results["by_structure"].items():
        correlation, calibration, agreement = (
            one["trajectories"][key] for key in ("change_correlation", "calibration_slope", "bland_altman")
        )
        limits = "–"
        if agreement["limits"]:
            outer = agreement["limits_intervals"][0][0], agreement["limits_intervals"][1][1]
            limits = f"{span(agreement['limits'], '+.3g')}\n({span(outer, '+.3g')})"
        table.add_row(
            escape(name),
            cell({"mean": correlation["r"], "interval": correlation["interval"]}, ".2f"),
            cell({"mean": calibration["slope"], "interval": calibration["interval"]}, ".2f"),
            cell({"mean": agreement["bias"], "interval": agreement["bias_interval"]}, "+.3g"),
            limits,
        )
    return table


def _may_be_undefined(one: Mapping[str, Any]) -> list[tuple[str, Summary]]:
    """Numbers of a structure whose gaps the tables do not show; those of scans, pairs and subjects."""
    found = [("Dice", one["dice"]), ("HD95", one["hd95"])]
    if one["consistency"]:
        found += [("STCS", one["consistency"]["stcs"]), ("ASPC", one["consistency"]["aspc"])]
        found += [("relative slope error", one["trajectories"]["relative_slope_error"])]
    return found


def _remarks(results: Results) -> list[str]:
    """What the tables do not show."""
    origins = ", ".join(f"{number} in {escape(place)}" for place, number in results["truth_from"].items())
    remarks = [f"Reference: {origins}.", *_absent(results)]
    if results["without_truth"]:
        remarks.append(f"Label maps without a reference, not evaluated: {len(results['without_truth'])}.")
    single = results["subjects_with_one_scan"]
    if not results["pairs"]:
        remarks.append(
            "Every subject has one scan: there are no consecutive scans to compare, hence no STCS, ASPC, slopes or "
            "figures over time."
        )
    elif single:
        remarks.append(f"Subjects with one scan, excluded from everything over time: {len(single)}.")
    if other := results["pairs_on_other_grids"]:
        remarks.append(
            f"{other} of {results['pairs']} pairs are not on one grid: STCS is not defined for them (ASPC and "
            "volumes are). To align a subject's scans: longflow_register"
        )
    if few := few_subjects(results["subjects"]):
        remarks.append(few)
    if results["pairs"] and results["subjects"] - len(single) < FEWEST_FOR_A_VERDICT:
        remarks.append(
            f"Whether a prediction is over-smoothed takes {FEWEST_FOR_A_VERDICT} subjects with several scans: fewer "
            "would differ by chance too often."
        )
    return [*remarks, *_verdicts(results)]


def _absent(results: Results) -> list[str]:
    """Scans without a structure, and numbers that are not defined."""
    remarks = []
    absent = {"missed": "missed in", "invented": "invented in", "in_neither": "in neither reference nor prediction of"}
    for name, one in results["by_structure"].items():
        if counts := [f"{words} {one[key]}" for key, words in absent.items() if one[key]]:
            remarks.append(f"{escape(name)}: {', '.join(counts)} of {results['scans']} scans.")
    if undefined := [
        f"{label} of {name}: {numbers['undefined']}"
        for name, one in results["by_structure"].items()
        for label, numbers in _may_be_undefined(one)
        if numbers["undefined"]
    ]:
        remarks.append(f"Not defined, hence excluded: {escape(first_few(undefined, most=12))}.")
    return remarks


def _verdicts(results: Results) -> list[str]:
    """What consistency over time says of the structures."""
    verdicts = {
        name: one["consistency"]["verdict"] or "" for name, one in results["by_structure"].items() if one["consistency"]
    }
    remarks = []
    if torn := [name for name, verdict in verdicts.items() if ";" in verdict]:
        remarks.append(
            f"STCS and ASPC disagree on {escape(first_few(torn))}: borders move about while the volume stands still, "
            "or the other way round. Look at the label maps; often the scans are badly aligned "
            "or the structure is small."
        )
    if smoothed := [name for name, verdict in verdicts.items() if verdict == "over-smoothed"]:
        remarks.append(
            f"[bold]Over-smoothed: {escape(first_few(smoothed))}.[/] The prediction changes less from scan to scan "
            "than the reference does (STCS above or ASPC below it): it hides change that was there."
        )
    return remarks


def show_best(best: Mapping[str, Any], console: Console) -> None:
    """Print the models that were compared, and the choice.

    :param best: content of best.json.
    """
    console.print(_model_table(best))
    show_further_rows(best["table"], console)
    console.print(
        f"Chosen: [bold]{escape(short_name(best['candidate']))}[/], Dice {best['dice']:.4f}. {_certainty(best)}",
        highlight=False,
    )
    for line in _held_out(best):
        console.print(line, highlight=False)
    if "volume_calibration" in best:  # not in records of earlier versions
        console.print(_calibration_table(best))


def _held_out(best: Mapping[str, Any]) -> list[str]:
    """What the choice is worth for new subjects, and which components are kept; nothing in earlier records."""
    lines = []
    if nested := best.get("nested"):
        lines.append(
            f"Chosen without the fold it is judged on: Dice {nested['dice']:.4f}; the choice on all subjects looks "
            f"{nested['optimism']:+.4f} better."
        )
    if kept := best.get("keep_largest"):
        pieces = ["all structures together" if len(step) > 1 else step[0] for step in kept["steps"]]
        lines.append(
            f"Only the largest component is kept of: {escape(', '.join(pieces))}. Dice {kept['dice']:.4f}, without "
            f"this {best['dice']:.4f}. To keep all: longflow_predict --keep_all_components."
            if pieces
            else "All components are kept: "
            + (
                f"with fewer than {FEWEST_SUBJECTS} validated subjects nothing is removed."
                if best["subjects"] < FEWEST_SUBJECTS
                else "removing all but the largest makes no structure better."
            )
        )
    return lines


def _calibration_table(best: Mapping[str, Any]) -> Table:
    """How the volumes of the chosen model are corrected."""
    table = Table(
        title="Volumes of the chosen model against the reference",
        title_justify="left",
        caption="Mean absolute error, ml; corrected: by the line of the other subjects.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("structure", overflow="fold")
    for name in ("error", "corrected", "volume_calibrated_ml"):
        table.add_column(name, overflow="fold")
    for name, one in best["volume_calibration"]["structures"].items():
        errors = (format(one[key], ".4g") if key in one else "" for key in ("error", "calibrated_error"))
        line = f"{one['intercept']:.4g} + {one['slope']:.4g} x volume_ml" if "slope" in one else f"no: {one['refused']}"
        table.add_row(escape(name), *errors, escape(line))
    return table


def _model_table(best: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"{best['dataset']}: {counted(best['scans'], 'validation scan')} of "
        f"{counted(best['subjects'], 'subject')}, {folds_in_words(best['folds'])}",
        title_justify="left",
        caption="Mean over structures, then over subjects; 95 % intervals over subjects.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("model", overflow="fold")
    for name in ("Dice", "95 % interval", "difference\nto the best", "95 % interval", "p"):
        table.add_column(name, justify="right")
    for row in best["table"][:MOST_ROWS]:
        chosen = row["candidate"] == best["candidate"]
        table.add_row(
            escape(short_name(row["candidate"])),
            f"{row['dice']:.4f}",
            span_or_nothing(row["from"], row["to"], ".4f"),
            "" if chosen else f"{row['difference_to_best']:+.4f}",
            "" if chosen else span_or_nothing(row["difference_from"], row["difference_to"], "+.4f"),
            "" if chosen else format(row["p"], ".2g"),
            style="bold" if chosen else None,
        )
    return table


def _certainty(best: Mapping[str, Any]) -> str:
    """How certain the choice is."""
    if len(best["table"]) == 1:
        return "It is the only model with these folds; nothing was compared."
    if best["subjects"] == 1:
        return "One subject tells models apart by chance as easily as by merit: train further folds."
    few = ""
    if best["subjects"] < FEWEST_FOR_A_VERDICT:
        few = f" Fewer than {FEWEST_FOR_A_VERDICT} subjects cannot tell any models apart."
    return (
        "p is that of the sign-flip test over subjects, corrected for all pairs of models: above 0.05, the data do not "
        f"tell a model from the best.{few} The figure is that of the best of several, hence slightly optimistic; "
        "held-out subjects (imagesTs) are free of that."
    )
