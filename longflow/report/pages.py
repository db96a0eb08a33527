"""The timeline report of a folder of predictions: an index, and a page for each subject, each one file that needs no
network.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from longflow.files import write_text
from longflow.parallel import Progress
from longflow.paths import path_in
from longflow.reading import read_json
from longflow.report.curves import volume_curves
from longflow.report.frames import LABEL_COLOURS, Content, content_of
from longflow.report.rendering import HERE, REPORT, file_text, render
from longflow.report.timeline import Moment, Results, Subject, Table, read_results

#: % of the axis that is free at each end
MARGIN = 3.0


def write_report(folder: Path, references: Sequence[Path] = (), progress: Progress = lambda *_: None) -> Path:
    """Write ``report/index.html`` and a page for each subject into a folder of predictions.

    :param folder: that ``longflow_predict`` wrote.
    :param references: folders with acquired scans, searched first.
    :param progress: called with (finished, all, subject).
    :returns: the index.
    :raises DataError: there is no prediction, or a table, sidecar or page cannot be read or written.
    """
    results = read_results(folder, references)
    output, rows = folder / REPORT, []
    for number, subject in enumerate(results.subjects):
        progress(number, len(results.subjects), subject.name)
        page = path_in(output, f"subject_{subject.name}.html")
        text, warnings = subject_page(results, subject)
        write_text(text, page)
        rows.append((subject, quote(page.name), warnings))
    progress(len(results.subjects), len(results.subjects), "")
    # pages of subjects that are no longer in the folder
    for page in set(output.glob("subject_*.html")) - {path_in(output, f"subject_{one.name}.html") for one, *_ in rows}:
        page.unlink()
    index = output / "index.html"
    write_text(render("index.html.j2", [], results=results, rows=rows), index)
    return index


def subject_page(results: Results, subject: Subject) -> tuple[str, int]:
    """Make the page of a subject.

    :returns: HTML, and how many warnings it shows.
    """
    content = content_of(subject, results.description)
    tables = [table for name, rows in results.tables.items() if (table := _table(name, rows, subject, results))]
    of_predictions = [f"{one.case}: {text}" for one in subject.predicted for text in one.warnings]
    beyond = [
        f"{one.case}: its horizon lies outside what the model was trained on."
        for one in subject.predicted
        if one.sidecar.get("horizon_outside_training") is True and not one.warnings
    ]
    warnings = list(dict.fromkeys([*of_predictions, *beyond, *subject.warnings, *content.warnings]))
    place = _Axis(subject)
    niivue, script = file_text("vendor/niivue.umd.js"), file_text("templates/viewer.js")
    text = render(
        "subject.html.j2",
        [niivue, script] if content.frames else [script],
        subject=subject,
        content=content,
        warnings=warnings,
        unit=results.description.time_unit,
        channels=results.description.channels,
        marks=[place.mark(one, results.description.time_unit) for one in subject.moments],
        ticks=place.ticks(),
        horizons=place.horizons(subject),
        curves=volume_curves(results, subject),
        tables=tables,
        page=_page_of(results, content, tables),
        folder=results.folder.name,
        files=sorted({path.name for one in subject.predicted for path in (*one.images, one.label) if path}),
        viewer=read_json(HERE / "vendor/niivue.json", dict),
        licence="\n\n".join(file_text(f"vendor/{name}.LICENSE") for name in ("niivue", "niivue_packages")),
        niivue=Markup(niivue),
        script=Markup(script),
    )
    return text, len(warnings)


def _page_of(results: Results, content: Content, tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the script is given."""
    red, green, blue, alpha = zip((0, 0, 0, 0), *((*colour, 255) for colour in LABEL_COLOURS), strict=True)
    return {
        "unit": results.description.time_unit,
        "frames": content.frames,
        "targets": content.targets,
        "windows": content.windows,
        "tables": [{"file": table["file"], "csv": table["csv"]} for table in tables],
        "labels": {"R": red, "G": green, "B": blue, "A": alpha, "labels": [""] * len(red)},
    }


class _Axis:
    """Places on the time axis, % of its width."""

    def __init__(self, subject: Subject):
        context = [time for one in subject.predicted for time in _numbers(one.sidecar.get("context_times"))]
        times = [*context, *(one.time for one in subject.moments)]
        self.first, self.last = min(times), max(times)

    def left(self, time: float) -> float:
        """Return the place of a time."""
        share = (time - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return round(MARGIN + share * (100 - 2 * MARGIN), 3)

    def mark(self, one: Moment, unit: str) -> dict[str, Any]:
        """Return the mark of a scan, for the template."""
        kinds = {
            "acquired": "acquired scan",
            "requested": "requested, not predicted",
            "label map": "predicted label map",
        }
        phase = f", {one.phase}" if one.phase else ""
        label = f"{one.time:g} {unit}{phase}: {kinds.get(one.kind, one.kind)}, {one.case}"
        return {"left": self.left(one.time), "kind": one.kind, "case": one.case, "label": label}

    def ticks(self) -> list[dict[str, Any]]:
        """Return round numbers along the axis."""
        found = (
            MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(self.first, self.last)
            if self.last > self.first
            else [self.first]
        )
        return [{"left": self.left(time), "text": f"{time:g}"} for time in found if self.first <= time <= self.last]

    def horizons(self, subject: Subject) -> list[dict[str, Any]]:
        """Return the spans from the last given scan to the predicted time, the longest of each kind."""
        kinds = {
            "inside": "shaded blue: horizon that was trained on",
            "outside": "hatched: horizon that was NOT trained on",
            "unknown": "shaded grey: whether this horizon was trained on is not recorded",
        }
        spans: dict[str, tuple[float, float]] = {}
        for one in subject.predicted:
            if times := _numbers(one.sidecar.get("context_times")):
                outside = one.sidecar.get("horizon_outside_training")
                kind = "outside" if outside is True else "inside" if outside is False else "unknown"
                start, end = spans.get(kind, (max(times), one.time))
                spans[kind] = min(start, max(times)), max(end, one.time)
        return [
            {"left": self.left(start), "width": self.left(end) - self.left(start), "trained": kind, "text": kinds[kind]}
            for kind, (start, end) in spans.items()
        ]


def _numbers(found: object) -> list[float]:
    """Return the numbers of a list in a sidecar; none where it is no list of numbers."""
    numbers = found if isinstance(found, list) else []
    return [float(one) for one in numbers if isinstance(one, int | float)]


def _table(name: str, rows: Table, subject: Subject, results: Results) -> dict[str, Any] | None:
    """Return the subject's rows of a table, for the template; None where it has none."""
    own = [row for row in rows if row["subject"] == subject.name]
    if not own:
        return None
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(own[0]))
    writer.writeheader()
    writer.writerows(own)
    defined = [(column, results.definitions[column]) for column in own[0] if column in results.definitions]
    file = f"{subject.name}_{name}"
    return {
        "name": name,
        "columns": list(own[0]),
        "rows": own,
        "definitions": defined,
        "csv": text.getvalue(),
        "file": file,
    }
