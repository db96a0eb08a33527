"""The timeline report of a folder of predictions: an index, and a page for each subject, each one file that needs no
network.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from longflow.files import write_text
from longflow.parallel import Progress
from longflow.paths import DatasetPaths, path_in
from longflow.reading import read_json
from longflow.report.curves import volume_curves
from longflow.report.frames import LABEL_COLOURS, Content, content_of
from longflow.report.rendering import HERE, REPORT, file_text, link_to, render
from longflow.report.timeline import Moment, Predicted, Results, Subject, Table, numbers_in, read_results

#: % of the axis that is free at each end
MARGIN = 3.0
#: contrast phases that are shown side by side, at most
MOST_PHASES = 4
#: what is on the time axis and in the viewer, in words
KINDS = {
    "acquired": "acquired scan",
    "prediction": "prediction",
    "label map": "predicted label map",
    "requested": "requested, not predicted",
    "missing": "scan that was not found",
}
#: the place of a link in the index
STUDY_LINK = re.compile('<p id="study">.*?</p>')


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
    index = output / "index.html"
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
    write_text(render("index.html.j2", [], results=results, rows=rows), index)
    for name in sorted(results.datasets):
        link_to_study(index, DatasetPaths(name).report / "index.html")
    return index


def link_to_study(index: Path, study: Path) -> None:
    """Link an index of subjects to the report of their dataset, where both exist."""
    if index.is_file() and study.is_file():
        link = f'<p id="study"><a href="{link_to(study, index)}">Report of the whole study</a></p>'
        write_text(STUDY_LINK.sub(lambda _: link, index.read_text(encoding="utf-8"), count=1), index)


def subject_page(results: Results, subject: Subject) -> tuple[str, int]:
    """Make the page of a subject.

    :returns: HTML, and how many warnings it shows.
    """
    content = content_of(subject, results.description, results.label_names)
    tables = [table for name, rows in results.tables.items() if (table := _table(name, rows, subject, results))]
    of_predictions = [f"{one.case}: {text}" for one in subject.predicted for text in one.warnings]
    beyond = [
        f"{one.case}: its horizon lies outside what the model was trained on."
        for one in subject.predicted
        if one.sidecar.get("horizon_outside_training") is True and not one.warnings
    ]
    unlike = [
        f"{one.case}: its scans are {one.verdict} for the model. {reason}"
        for one in subject.predicted
        if one.verdict in ("unfit", "doubtful")
        for reason in one.reasons
    ]
    warnings = list(dict.fromkeys([*unlike, *of_predictions, *beyond, *subject.warnings, *content.warnings]))
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
        phases=phases_of(content),
        marks=place.marks(subject.moments, results.description.time_unit),
        kinds=[(kind, text) for kind, text in KINDS.items() if kind in {one.kind for one in subject.moments}],
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
        "levels": content.levels,
        "kinds": KINDS,
        "tables": [{"file": table["file"], "csv": table["csv"]} for table in tables],
        "labels": {"R": red, "G": green, "B": blue, "A": alpha, "labels": [""] * len(red)},
    }


class _Axis:
    """Places on the time axis, % of its width."""

    def __init__(self, subject: Subject):
        context = [time for one in subject.predicted for time in numbers_in(one.sidecar.get("context_times"))]
        times = [*context, *(one.time for one in subject.moments)]
        self.first, self.last = min(times), max(times)

    def left(self, time: float) -> float:
        """Return the place of a time."""
        share = (time - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return round(MARGIN + share * (100 - 2 * MARGIN), 3)

    def marks(self, moments: Sequence[Moment], unit: str) -> list[dict[str, Any]]:
        """Return the marks of scans, for the template; those of one time, as of contrast phases, are side by side."""
        marks: list[dict[str, Any]] = []
        taken: Counter[tuple[float, bool]] = Counter()
        for one in moments:
            phase = f", {one.phase}" if one.phase else ""
            labels = ", with labels" if one.label and one.kind != "label map" else ""
            label = f"{one.time:g} {unit}{phase}: {KINDS[one.kind]}{labels}, {one.case}"
            place = self.left(one.time), isinstance(one, Predicted)
            mark = {"left": place[0], "shift": taken[place], "kind": one.kind, "case": one.case, "label": label}
            marks.append(mark | {"labelled": bool(labels)})
            taken[place] += 1
        return marks

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
            if times := numbers_in(one.sidecar.get("context_times")):
                outside = one.sidecar.get("horizon_outside_training")
                kind = "outside" if outside is True else "inside" if outside is False else "unknown"
                start, end = spans.get(kind, (max(times), one.time))
                spans[kind] = min(start, max(times)), max(end, one.time)
        return [
            {"left": self.left(start), "width": self.left(end) - self.left(start), "trained": kind, "text": kinds[kind]}
            for kind, (start, end) in spans.items()
        ]


def phases_of(content: Content) -> list[str]:
    """Return the contrast phases that are shown side by side; one without a name where there are fewer than two."""
    found = list(dict.fromkeys(frame["phase"] for frame in content.frames if frame["phase"]))
    return found[:MOST_PHASES] if len(found) > 1 else [""]


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
    file = f"{subject.name}_{name.removesuffix('.csv').replace(' ', '_')}.csv"
    return {
        "name": name,
        "columns": list(own[0]),
        "rows": own,
        "definitions": defined,
        "csv": text.getvalue(),
        "file": file,
    }
