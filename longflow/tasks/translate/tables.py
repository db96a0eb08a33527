"""What ``longflow_evaluate`` shows of translations: a table for each direction, the untranslated input in each."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longflow.errors import first_few
from longflow.report.tables import cell, counted, few_subjects, mean_of, new_table, span

Results = Mapping[str, Any]

#: name in the results, heading, form; {unit} is that of the voxels
SHOWN = (
    ("body_mae", "MAE in the body [{unit}]", ".4g"),
    ("mae", "MAE, whole image [{unit}]", ".4g"),
    ("psnr", "PSNR [dB]", ".2f"),
    ("ssim", "SSIM", ".4f"),
    ("through_plane_error", "through-plane error [{unit}/mm]", ".3g"),
    ("psnr_mfm", "PSNR as in MFM [dB]", ".2f"),
    ("ssim_mfm", "SSIM as in MFM", ".4f"),
)


def show_translations(results: Results, console: Console) -> None:
    """The tables of an evaluated folder of translations, and in words what they leave out.

    :param results: the content of metrics.json.
    """
    for kind in ("by_direction", "round_trip"):
        for phase, one in results[kind].items():
            console.print(_table(results, one, phase, back=kind == "round_trip"))
            for line in _remarks(one, back=kind == "round_trip"):
                console.print(line, highlight=False)
    if results["by_direction"] or results["round_trip"]:
        console.print(
            "SSIM as in MFM is close to 1 for almost any two scans of one body (its C2 is ten times the usual one); it "
            "and PSNR with 2000 are for comparison with its tables.",
            highlight=False,
        )
    if results["without_truth"]:
        console.print(f"Translations without a truth, not evaluated: {len(results['without_truth'])}.", highlight=False)


def _table(results: Results, one: Results, phase: str, back: bool) -> Table:
    """A row for each number; translation, input and their paired difference."""
    unit = unit_of(results)
    of = f"{counted(one['translations'], 'scan')} of {counted(one['subjects'], 'subject')}"
    there = "There and back, " if back else ""
    table = new_table(
        f"{there}{' or '.join(one['source_phases'])} to {phase}: {of}: mean over subjects, 95 % interval",
        *("", f"translation\n({', '.join(results['methods'])})", "untranslated\ninput", "difference"),
    )
    for name, heading, form in SHOWN:
        if one["translation"][name]["mean"] is None and one["input"][name]["mean"] is None:
            continue  # MFM's PSNR of other units than HU
        numbers = [one["translation"][name], one["input"][name]]
        cells = [*(cell(number, form) for number in numbers), cell(one["difference"][name], f"+{form}")]
        table.add_row(escape(heading.format(unit=unit)), *cells, style="bold" if name == "body_mae" else None)
    if one["by_label"]:
        table.add_section()
    for name, number in one["by_label"].items():
        cells = [
            *(cell(number[image], ".4g") for image in ("translation", "input")),
            cell(number["difference"], "+.4g"),
        ]
        table.add_row(escape(f"MAE in {name} [{unit}]"), *cells)
    return table


def unit_of(results: Results) -> str:
    """What voxels count, for people."""
    return "HU" if all(results["ct"]) else "input units"


def _remarks(one: Results, back: bool) -> list[str]:
    """What the table of a direction leaves out or does not say."""
    remarks = []
    found, untranslated = (one[image]["body_mae"]["mean"] for image in ("translation", "input"))
    if back:
        remarks.append(
            "There and back tells what is lost on the way, not whether the way there was right: who changes nothing "
            "loses nothing. The untranslated input is the translation there."
        )
    elif found is not None and untranslated:
        difference = one["difference"]["body_mae"]
        low, high = difference["interval"] or (difference["mean"],) * 2
        verdict = "better" if high < 0 else "worse" if low > 0 else "not told apart from it"
        interval = f", 95 % interval of the difference {span([low, high], '+.4g')}" if difference["interval"] else ""
        remarks.append(
            f"MAE in the body: {found / untranslated:.2f} x that of the untranslated scan ({verdict}{interval})."
        )
    if one["seconds_per_volume"]["mean"] is not None:
        remarks.append(
            f"Time: {mean_of(one['seconds_per_slice'], '.3g')} s per slice, "
            f"{mean_of(one['seconds_per_volume'], '.3g')} s per volume."
        )
    if undefined := [
        f"{heading.split(' [')[0]}: {one['translation'][name]['undefined']}"
        for name, heading, _ in SHOWN
        if one["translation"][name]["undefined"]
    ] + [
        f"MAE in {name}: {number['translation']['undefined']}"
        for name, number in one["by_label"].items()
        if number["translation"]["undefined"]
    ]:
        text = escape(first_few(undefined, most=12))
        remarks.append(f"Scans for which a number is not defined, hence left out of it: {text}.")
    if few := few_subjects(one["subjects"]):
        remarks.append(few)
    return remarks
