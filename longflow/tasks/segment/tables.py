"""What ``longflow_evaluate`` shows of segmentations: overlap, consistency over time, volumes over time."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longflow.errors import first_few
from longflow.report.tables import Summary, cell, counted, few_subjects, mean_of, new_table, span

Results = Mapping[str, Any]


def show_segmentations(results: Results, console: Console) -> None:
    """The tables of an evaluated folder of label maps, and in words what they leave out.

    :param results: the content of metrics.json.
    """
    console.print(_overlap_table(results))
    if any(one["lesions"] for one in results["by_structure"].values()):
        console.print(_lesion_table(results))
    if results["pairs"]:
        console.print(_consistency_table(results))
        console.print(_volume_table(results))
    for line in _remarks(results):
        console.print(line, highlight=False)


def _overlap_table(results: Results) -> Table:
    """A row for each structure and one for their mean."""
    methods = f" ({', '.join(results['methods'])})" if results["methods"] else ""
    of = f"{counted(results['scans'], 'scan')} of {counted(results['subjects'], 'subject')}"
    title = f"{of}{methods}: mean over subjects, 95 % interval"
    table = new_table(title, "structure", "Dice", "IoU", "HD95 [mm]")
    for name, one in results["by_structure"].items():
        table.add_row(escape(name), *_overlap_cells(one))
    if len(results["by_structure"]) > 1:
        table.add_section()
        table.add_row("mean over structures", *_overlap_cells(results["overall"]), style="bold")
    return table


def _overlap_cells(numbers: Mapping[str, Summary]) -> list[str]:
    return [cell(numbers["dice"], ".4f"), cell(numbers["iou"], ".4f"), cell(numbers["hd95"], ".2f")]


def _lesion_table(results: Results) -> Table:
    table = new_table(
        "Connected pieces, as lesions are counted (any overlap counts): mean over subjects, 95 % interval",
        *("structure", "true pieces\nper scan, median", "precision", "recall", "F1"),
    )
    for name, one in results["by_structure"].items():
        if lesions := one["lesions"]:
            cells = [cell(lesions[f"lesion_{number}"], ".3f") for number in ("precision", "recall", "f1")]
            table.add_row(escape(name), f"{lesions['median_number']:g}", *cells)
    return table


def _consistency_table(results: Results) -> Table:
    """STCS and ASPC of each structure: prediction, truth, their paired difference, and what it means."""
    table = new_table(
        f"Consistency over {counted(results['pairs'], 'pair')} of consecutive scans: mean over subjects, 95 % interval",
        *("structure", "", "prediction", "truth", "difference"),
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


def _volume_table(results: Results) -> Table:
    unit = results["time_unit"]
    table = new_table(
        "Volumes over time: mean over subjects, 95 % interval",
        *("structure", f"error of slope\n[ml / {unit}]", "|error| /\n|true|,\nmedian"),
        *("correlation\nof changes", "bias of changes\n[ml] (limits)"),
    )
    for name, one in results["by_structure"].items():
        numbers = one["trajectories"]
        relative, correlation, agreement = (
            numbers[key] for key in ("relative_slope_error", "change_correlation", "bland_altman")
        )
        limits = f"\n({span(agreement['limits'], '+.3g')})" if agreement["limits"] else ""
        table.add_row(
            escape(name),
            cell(numbers["slope_error"], "+.2g"),
            "–" if relative["median"] is None else f"{relative['median']:.1%}",
            cell({"mean": correlation["r"], "interval": correlation["interval"]}, ".2f"),
            f"{agreement['bias']:+.3g}{limits}",
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
    """What the tables leave out or do not say."""
    remarks = [
        f"Truth: {', '.join(f'{number} in {escape(place)}' for place, number in results['truth_from'].items())}."
    ]
    absent = {"missed": "missed in", "invented": "invented in", "in_neither": "in neither truth nor prediction of"}
    for name, one in results["by_structure"].items():
        if counts := [f"{words} {one[key]}" for key, words in absent.items() if one[key]]:
            remarks.append(f"{escape(name)}: {', '.join(counts)} of {results['scans']} scans.")
    if undefined := [
        f"{label} of {name}: {numbers['undefined']}"
        for name, one in results["by_structure"].items()
        for label, numbers in _may_be_undefined(one)
        if numbers["undefined"]
    ]:
        remarks.append(f"Not defined, hence left out: {escape(first_few(undefined, most=12))}.")
    if results["without_truth"]:
        remarks.append(f"Label maps without a truth, not evaluated: {len(results['without_truth'])}.")
    single = results["subjects_with_one_scan"]
    if not results["pairs"]:
        remarks.append(
            "Every subject has one scan: there are no consecutive scans to compare, hence no STCS, ASPC, slopes or "
            "figures over time."
        )
    elif single:
        remarks.append(f"Subjects with one scan, left out of everything over time: {len(single)}.")
    if other := results["pairs_on_other_grids"]:
        remarks.append(
            f"{other} of {results['pairs']} pairs do not lie on one grid: STCS is not defined for them (ASPC and "
            "volumes are). To bring a subject's scans into correspondence: longflow_register"
        )
    if few := few_subjects(results["subjects"]):
        remarks.append(f"{few} What a prediction is called is a hint then, no finding.")
    verdicts = {
        name: one["consistency"]["verdict"] or "" for name, one in results["by_structure"].items() if one["consistency"]
    }
    if torn := [name for name, verdict in verdicts.items() if ";" in verdict]:
        remarks.append(
            f"STCS and ASPC disagree on {escape(first_few(torn))}: borders move about while the volume stands still, "
            f"or the "
            "other way round. Look at the label maps; often the scans are badly registered or the structure is small."
        )
    if smoothed := [name for name, verdict in verdicts.items() if verdict == "over-smoothed"]:
        remarks.append(
            f"[bold]Over-smoothed: {escape(first_few(smoothed))}.[/] The prediction changes less from scan to scan "
            f"than the "
            "truth does (STCS above or ASPC below it): it hides change that was there."
        )
    return remarks
