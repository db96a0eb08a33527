"""Print a calibration: how wide the intervals of volumes are, for which horizons, and what they promise."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from longflow.report.tables import counted, folds_in_words, new_table, span
from longflow.tasks.forecast.segmented import LABELS, SEGMENTED_SCAN

#: what the reference of a structure is, in the sentence on the intervals
REFERENCES = {LABELS: "that a rater draws in", SEGMENTED_SCAN: "that the same model segments in"}


def show_calibration(record: Mapping[str, Any], console: Console) -> None:
    """Print the table of structures and horizons, and the promise.

    :param record: content of calibration.json.
    """
    level, unit = record["level"], record["time_unit"]
    title = (
        f"{record['dataset']}: intervals of {level:.0%} from {counted(record['targets'], 'out-of-fold forecast')} of "
        f"{counted(record['subjects'], 'subject')}, {folds_in_words(record['folds'])}"
    )
    headings = (
        f"horizon\n[{unit}]",
        "subjects",
        "highest level",
        "mean\n[ml]",
        "interval\n± [ml]",
        "that of LCI\n± [ml]",
    )
    noise = {name: one.get("repeatability") for name, one in record["by_structure"].items()}
    known = any(noise.values())
    if known:
        headings = (*headings, "repeatability\n± [ml]")
    table = new_table(title, "structure", *headings)
    for name, one in record["by_structure"].items():
        for row in one["half_widths"]:
            low, high = row["shortest"], row["longest"]
            table.add_row(
                escape(name),
                f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}",
                str(row["subjects"]),
                f"{row['attainable_level']:.1%}",
                f"{one['mean_reference_ml']:.4g}",
                f"{row['half_width_ml']:.3g}",
                f"{row['lci_half_width_ml']:.3g}",
                *([_repeatability(noise[name])] if known else []),
            )
    console.print(table)
    if known:
        subjects = next(one["subjects"] for one in noise.values() if one)
        console.print(
            "Repeatability: two measurements of a patient who did not change differ by less in 95 % of cases; below it "
            f"that of the 95 % interval of its estimate ({counted(subjects, 'subject')}). A forecast is called changed "
            "(volumes.csv) if the last volume is outside of its interval and differs by more than the repeatability.",
            highlight=False,
        )
    kinds = {REFERENCES[one["reference"]] for one in record["by_structure"].values()}
    console.print(
        f"Of new patients like these, about {level:.0%} or more have their volume in the interval: the volume "
        f"{' or '.join(sorted(kinds))} the scan that is acquired then. It is a share of all patients. It says nothing "
        "about one kind of patient among them, or about other scanners and diseases.",
        highlight=False,
    )
    if seen := record["subjects_of_segmenter_training"]:
        console.print(
            f"The model that segments was trained on {len(seen)} of the subjects: the intervals may be too narrow. "
            "Choose one that was not trained on them.",
            highlight=False,
        )


def _repeatability(noise: Mapping[str, Any] | None) -> str:
    """Return the coefficient, and below it those of the limits of the standard deviation."""
    if noise is None:
        return ""
    if not noise["within_sd"]:
        return "0"
    factor = noise["coefficient"] / noise["within_sd"]
    limits = [factor * noise[name] for name in ("within_sd_from", "within_sd_to")]
    return f"{noise['coefficient']:.3g}\n{span(limits, '.3g')}"
