"""What ``longflow_evaluate`` shows of translations: a table for each direction, with the untranslated input."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longflow.errors import first_few
from longflow.evaluation.metric import Metric, metrics_of
from longflow.evaluation.significance import FEWEST_FOR_A_VERDICT, is_difference
from longflow.report.tables import cell, counted, few_subjects, mean_of, new_table, span
from longflow.tasks.translate.task import TASK

Results = Mapping[str, Any]

#: own metrics of the table in this order; those of installed packages follow
SHOWN = ("body_mae", "mae", "psnr", "ssim", "through_plane_error", "psnr_mfm", "ssim_mfm")

#: of the table of structures: title and form of each number, and the images in their columns
STRUCTURE_ROWS = {
    "dice": ("Dice, with the acquired scan segmented", ".3f"),
    "volume_error_ml": ("volume error [ml]", ".4g"),
    "dice_to_labels": ("Dice, with the label map", ".3f"),
}
IMAGES = ("translation", "input", "acquired")


def show_translations(results: Results, console: Console) -> None:
    """Print the tables of an evaluated folder of translations, and remarks on what they do not show.

    :param results: content of metrics.json.
    """
    for kind in ("by_direction", "round_trip"):
        for phase, one in results[kind].items():
            metrics = _shown_metrics(one)
            console.print(_table(results, phase, metrics, back=kind == "round_trip"))
            for line in _remarks(one, metrics, back=kind == "round_trip"):
                console.print(line, highlight=False)
    if results["by_direction"] or results["round_trip"]:
        console.print(
            "SSIM as in MFM is close to 1 for almost any two scans of one body (its C2 is ten times the usual one); it "
            "and PSNR with 2000 are for comparison with its tables.",
            highlight=False,
        )
    if results.get("structures"):
        show_structures(results["structures"], console)
    if results["without_truth"]:
        console.print(
            f"Translations without a reference, not evaluated: {len(results['without_truth'])}.", highlight=False
        )


def _shown_metrics(one: Results) -> list[Metric]:
    """Metrics with a heading that the results hold, in the order of the table."""
    known = {metric.name: metric for metric in metrics_of(TASK) if metric.heading}
    names = [*SHOWN, *(name for name in known if name not in SHOWN)]
    return [known[name] for name in names if name in one["translation"]]


def _table(results: Results, phase: str, metrics: Sequence[Metric], back: bool) -> Table:
    """A row for each number; translation, input and their paired difference."""
    one, unit = results["round_trip" if back else "by_direction"][phase], unit_of(results, phase)
    of = f"{counted(one['translations'], 'scan')} of {counted(one['subjects'], 'subject')}"
    there = "There and back, " if back else ""
    table = new_table(
        f"{there}{' or '.join(one['source_phases'])} to {phase}: {of}: mean over subjects, 95 % interval",
        *("", f"translation\n({', '.join(results['methods'])})", "untranslated\ninput", "difference"),
    )
    for metric in metrics:
        numbers = [one[image][metric.name] for image in ("translation", "input")]
        if all(number["mean"] is None for number in numbers):
            continue  # MFM's PSNR of other units than HU
        form = metric.format
        cells = [*(cell(number, form) for number in numbers), cell(one["difference"][metric.name], f"+{form}")]
        table.add_row(escape(metric.title(unit)), *cells, style="bold" if metric.name == "body_mae" else None)
    if one["by_label"]:
        table.add_section()
    for name, number in one["by_label"].items():
        cells = [
            *(cell(number[image], ".4g") for image in ("translation", "input")),
            cell(number["difference"], "+.4g"),
        ]
        table.add_row(escape(f"MAE in {name} [{unit}]"), *cells)
    return table


def show_structures(found: Results, console: Console) -> None:
    """Print the table of structures of each direction.

    :param found: ``structures`` of metrics.json (:mod:`longflow.tasks.translate.structures`).
    """
    for phase, structures in found["by_direction"].items():
        table = new_table(
            f"Structures in translations to {phase}, segmented by {found['segmenter']} of {found['dataset']}: mean "
            "over subjects, 95 % interval",
            *("structure", "", "translation", "untranslated\ninput", "acquired\nscan"),
        )
        for name, one in structures.items():
            for number, (title, form) in STRUCTURE_ROWS.items():
                cells = [cell(one[image][number], form) if image in one else "" for image in IMAGES]
                if any(one[image][number]["mean"] is not None for image in IMAGES if image in one):
                    table.add_row(escape(name), title, *cells)
                    name = ""
            table.add_section()
        console.print(table)
    lines = []
    if left := found["not_segmented"]:
        lines.append(f"Not segmented, since the model takes other channels: translations to {' and '.join(left)}.")
    if seen := found["trained_on"]:
        lines.append(f"The model that segments was trained on {first_few(seen)}: do not read its numbers there as new.")
    for line in lines:
        console.print(line, highlight=False)


def unit_of(results: Results, phase: str | None = None) -> str:
    """Return the unit of the voxels of translations.

    :param results: with ``ct`` (of each channel) and, since phases can be different modalities, ``ct_of_phases``.
    :param phase: that was requested; None: of all phases together.
    :returns: "HU" and the like.
    """
    of_phases = results.get("ct_of_phases", {})  # not in records of earlier versions
    ct = [of_phases[phase]] if phase in of_phases else list(of_phases.values()) or [results["ct"]]
    units = {"HU" if all(one) else "input units" for one in ct}
    return units.pop() if len(units) == 1 else "units of each phase"


def _remarks(one: Results, metrics: Sequence[Metric], back: bool) -> list[str]:
    """What the table of a direction does not show."""
    remarks = []
    translated, untranslated = (one[image]["body_mae"]["mean"] for image in ("translation", "input"))
    if back:
        remarks.append(
            "There and back shows what is lost on the way, not whether the translation there was right: a model that "
            "changes nothing loses nothing. The untranslated input is the translation there."
        )
    elif translated is not None and untranslated:
        difference = one["difference"]["body_mae"]
        if difference["subjects"] < FEWEST_FOR_A_VERDICT:
            verdict = f"too few subjects for a verdict, which takes {FEWEST_FOR_A_VERDICT}"
        elif is_difference(difference["p_holm"]):
            verdict = "better" if difference["mean"] < 0 else "worse"
        else:
            verdict = "not told apart from it"
        interval = ""
        if difference["interval"]:
            interval = f", 95 % interval of the difference {span(difference['interval'], '+.4g')}"
            interval += f", sign-flip test p = {difference['p_holm']:.2g}"
        remarks.append(
            f"MAE in the body: {translated / untranslated:.2f} x that of the untranslated scan ({verdict}{interval})."
        )
    if one["seconds_per_volume"]["mean"] is not None:
        remarks.append(
            f"Time: {mean_of(one['seconds_per_slice'], '.3g')} s per slice, "
            f"{mean_of(one['seconds_per_volume'], '.3g')} s per volume."
        )
    if undefined := [
        f"{metric.heading}: {one['translation'][metric.name]['undefined']}"
        for metric in metrics
        if one["translation"][metric.name]["undefined"]
    ] + [
        f"MAE in {name}: {number['translation']['undefined']}"
        for name, number in one["by_label"].items()
        if number["translation"]["undefined"]
    ]:
        text = escape(first_few(undefined, most=12))
        remarks.append(f"Scans for which a number is not defined, hence excluded from it: {text}.")
    if few := few_subjects(one["subjects"]):
        remarks.append(few)
    return remarks
