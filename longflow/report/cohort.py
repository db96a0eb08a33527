"""The report of a cohort: data, plan, trainings, cross-validation, held-out results, model card, as one HTML file.

It shows what commands left on the disk; a part that is missing is said to be missing, with the command that makes it.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longflow.data.dataset import PHASE, DatasetDescription, Row, parse_time, read_description, rows_of_folder
from longflow.errors import LongflowError
from longflow.evaluation.conformal import CALIBRATION_JSON
from longflow.evaluation.metric import Metric, metrics_of
from longflow.evaluation.summary import subject_means
from longflow.files import write_csv, write_json, write_text
from longflow.methods.registry import method_class, validation_class_of
from longflow.paths import METRICS_CSV, METRICS_JSON, PLANS_NAME, ComparisonPaths, DatasetPaths, FoldPaths, ModelPaths
from longflow.reading import parse_number, read_json, read_table
from longflow.report.drawing import BASELINE_COLOUR, PREDICTION_COLOUR, as_svg, learning_curves, plt
from longflow.report.model_card import model_card, performance, predictions_of
from longflow.report.numbers import NumberTable, facts, number_tables, parts_named, table_by_span
from longflow.report.pages import link_to_study
from longflow.report.rendering import REPORT, interval, link_to, render
from longflow.task import Task, get_task
from longflow.training.progress import AS_NAMED

#: subjects of the raster; of more, the first ones
MOST_SUBJECTS = 200
#: subjects with the best and with the worst results
SHOWN_SUBJECTS = 5
#: bytes of a figure that other commands drew
MOST_FIGURE_BYTES = 3_000_000
#: words in the keys of what tells whether intervals hold
CALIBRATION = ("calibration", "coverage", "conformal")


@dataclass(frozen=True)
class Cohort:
    """What commands wrote about a dataset; empty where a command did not run.

    :param training: rows of the table of imagesTr.
    :param test: likewise of imagesTs.
    :param predictions: folder of held-out predictions, or None.
    :param results: its metrics.json.
    :param rows: its metrics.csv.
    """

    paths: DatasetPaths
    description: DatasetDescription
    training: list[Row]
    test: list[Row]
    plans: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    best: Mapping[str, Any]
    predictions: Path | None
    results: Mapping[str, Any]
    rows: list[dict[str, str]]

    @property
    def task(self) -> Task:
        """Return the dataset's task."""
        return get_task(self.description.task)

    @property
    def principal(self) -> Metric:
        """Return the metric by which the model was chosen, or else the first one that has a better direction."""
        metrics = [metric for metric in metrics_of(self.task) if metric.better]
        return next((metric for metric in metrics if metric.name in self.best), metrics[0])


def read_cohort(paths: DatasetPaths, predictions: Path | None = None) -> Cohort:
    """Read what there is of a dataset.

    :param predictions: held-out predictions; None: those of ``longflow_run``, where there are some.
    :raises DataError: dataset.json is nowhere, or a file cannot be read.
    """
    folder = predictions or (paths.predictions if paths.predictions.is_dir() else None)
    described = [paths.raw / "dataset.json", *(model.dataset_json for model in _models(paths))]
    return Cohort(
        paths=paths,
        description=read_description(next((path for path in described if path.is_file()), described[0])),
        training=_rows(paths.raw / "imagesTr"),
        test=_rows(paths.raw / "imagesTs"),
        plans=_read(_plans_of(paths)),
        fingerprint=_read(paths.fingerprint),
        best=_read(paths.best),
        predictions=folder,
        results=_read(folder / METRICS_JSON) if folder else {},
        rows=_table(folder / METRICS_CSV) if folder else [],
    )


def write_cohort_report(paths: DatasetPaths, predictions: Path | None = None) -> Path:
    """Write the report of a dataset, with ``model_card.json`` and ``subjects.csv``.

    :param predictions: as of :func:`read_cohort`.
    :returns: the page.
    """
    cohort = read_cohort(paths, predictions)
    metrics = [metric for metric in metrics_of(cohort.task) if metric.better]
    groups = performance(cohort.rows, [*cohort.training, *cohort.test], metrics, cohort.task)
    card = model_card(paths, cohort.task, cohort.plans, cohort.fingerprint, cohort.best, cohort.results, groups)
    write_json(card, paths.report / "model_card.json")
    write_csv(["subject", "mean"], _subjects(cohort), paths.report / "subjects.csv", exact=True)
    overall = _held_out(cohort)
    text = render(
        "cohort.html.j2",
        [],
        cohort=cohort,
        in_short=_in_short(cohort, overall),
        unit=cohort.description.time_unit,
        raster=_raster(cohort),
        temporal=facts(cohort.fingerprint.get("temporal", {})),
        integrity=_table(paths.integrity) if paths.integrity.is_file() else None,
        reasons=list(_reasons(cohort.plans)),
        trainings=list(_trainings(paths)),
        curves=list(_learning(cohort)),
        best=facts(cohort.best),
        candidates=_table(paths.best_table)[:20],
        solvers=_table(paths.best_solvers),
        principal=cohort.principal,
        subjects=read_table_of_subjects(cohort),
        link=_link(cohort),
        overall=overall,
        spans=table_by_span(cohort.results, cohort.principal.name, cohort.description.time_unit),
        further=number_tables(cohort.results, cohort.description.time_unit),
        found=facts(cohort.results.get("overall", cohort.results)),
        definitions=cohort.results.get("definitions", {}),
        figures=list(_figures(cohort.predictions / "figures")) if cohort.predictions else [],
        comparisons=list(_comparisons(paths)),
        calibration=[*parts_named(cohort.results, CALIBRATION), *parts_named(cohort.best, CALIBRATION)],
        intervals={path.parent.name: _half_widths(_read(path)) for path in _calibrations(paths)},
        card=read_json(paths.report / "model_card.json", dict),
        groups=list(_group_tables(groups)),
    )
    page = paths.report / "index.html"
    write_text(text, page)
    if cohort.predictions:
        link_to_study(cohort.predictions / REPORT / "index.html", page)
    return page


def _in_short(cohort: Cohort, overall: list[NumberTable]) -> dict[str, Any]:
    """Return what a reader wants to know first."""
    name = cohort.principal.name
    found = {
        "subjects": f"{len({row.subject for row in cohort.training})} training, "
        f"{len({row.subject for row in cohort.test})} test",
        "chosen model": cohort.best.get("candidate"),
    }
    if table := next((one for one in overall if name in one.rows), None):
        cells = {column: table.cells.get((name, column)) for column in table.columns}
        numbers = [f"{column} {interval(cell)}" for column, cell in cells.items() if cell]
        found[f"held-out {name} ({cohort.principal.better} is better)"] = ", ".join(numbers)
    return {key: one for key, one in found.items() if one}


def _calibrations(paths: DatasetPaths) -> list[Path]:
    """List what ``longflow_calibrate`` wrote, a file for each model that segments."""
    return sorted(paths.calibrations.glob(f"*/{CALIBRATION_JSON}"))


def _half_widths(calibration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the widths of the intervals, a row for each structure and group of horizons; none of another version."""
    return [
        {"structure": name, "level": calibration.get("level"), "mean_ml": one.get("mean_reference_ml"), **row}
        for name, one in calibration.get("by_structure", {}).items()
        for row in one.get("half_widths", [])
    ]


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, dict) if path.is_file() else {}


def _table(path: Path) -> list[dict[str, str]]:
    return [line.cells for line in read_table(path)] if path.is_file() else []


def _rows(images: Path) -> list[Row]:
    return rows_of_folder(images) if images.is_dir() else []


def _models(paths: DatasetPaths) -> list[ModelPaths]:
    """List all models of which a training was begun, and those without training."""
    folders = sorted(paths.results.glob("*__*__*")) if paths.results.is_dir() else []
    return [ModelPaths(folder) for folder in folders if folder.is_dir()]


def _plans_of(paths: DatasetPaths) -> Path:
    """Return the usual plans, or else those of the first model."""
    found = [paths.plans(PLANS_NAME), *sorted(model.plans for model in _models(paths))]
    return next((path for path in found if path.is_file()), found[0])


# ---- data and plan


def _raster(cohort: Cohort) -> str | None:
    """Draw the scans of every subject over time; None where there is no table."""
    phases = sorted({row.covariates.get(PHASE, "") for row in (*cohort.training, *cohort.test)})
    times: dict[tuple[bool, str], list[tuple[float, str]]] = {}
    for is_test, rows in ((False, cohort.training), (True, cohort.test)):
        for row in rows:
            if (time := parse_time(row.time)) is not None:
                times.setdefault((is_test, row.subject), []).append((time, row.covariates.get(PHASE, "")))
    if not times:
        return None
    shown = sorted(times)[:MOST_SUBJECTS]
    figure, axis = plt.subplots(figsize=(9, max(2.0, min(0.14 * len(shown), 16) + 1)), layout="constrained")
    for is_test, colour, name in ((False, PREDICTION_COLOUR, "training"), (True, BASELINE_COLOUR, "test (imagesTs)")):
        for phase, marker in zip(phases, "osD^vP*X<>" * len(phases), strict=False):
            points = [
                (time, place)
                for place, key in enumerate(shown)
                for time, its_phase in times[key]
                if key[0] == is_test and its_phase == phase
            ]
            if points:
                label = f"{name}, {phase}" if phase else name
                axis.plot(*zip(*points, strict=True), marker, color=colour, markersize=3, linestyle="", label=label)
    for place, key in enumerate(shown):
        own = [time for time, _ in times[key]]
        axis.plot([min(own), max(own)], [place, place], color="#b0b0b0", linewidth=0.7, zorder=0)
    axis.set_xlabel(f"time [{cohort.description.time_unit}]")
    axis.set_ylabel(f"{len(shown)} of {len(times)} subjects" if len(shown) < len(times) else f"{len(times)} subjects")
    axis.set_yticks([])
    axis.invert_yaxis()
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return as_svg(figure)


def _reasons(content: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield every decision of the plans that has a reason, with its place in the file."""
    if isinstance(content, list):
        for number, one in enumerate(content):
            name = str(one.get("name", number)) if isinstance(one, Mapping) else str(number)
            yield from _reasons(one, f"{place} {name}")
    if not isinstance(content, Mapping):
        return
    for key, found in content.items():
        if key == "reasons" and isinstance(found, list):
            yield from ((place.strip(), str(sentence)) for sentence in found)
        elif key == "reason" and found:
            yield place.strip(), str(found)
        elif key == "excluded_covariates" and isinstance(found, Mapping):
            yield from ((f"column {column}", f"not used: {why}") for column, why in found.items())
        else:
            yield from _reasons(found, f"{place} {key}")


# ---- trainings


def _trainings(paths: DatasetPaths) -> Iterator[dict[str, Any]]:
    """Yield a row for every fold that was begun: its settings, how far it is, and what it cost."""
    for model in _models(paths):
        for folder in sorted(model.folder.glob("fold_*")):
            fold = FoldPaths(folder)
            run, progress = _read(fold.run), _table(fold.progress_csv)
            settings, cost = run.get("settings", {}), run.get("cost", {})
            yield {
                "method": model.method,
                "configuration": model.configuration,
                "fold": folder.name.removeprefix("fold_"),
                "state": "finished" if fold.final.is_file() else "not finished",
                "seed": settings.get("seed"),
                "device": settings.get("device"),
                "epochs": progress[-1]["epoch"] if progress else None,
                "steps": cost.get("iterations"),
                "parameters": cost.get("parameters"),
                "seconds": cost.get("seconds"),
                "peak memory [GB]": _gigabytes(cost.get("peak_memory")),
            }


def _gigabytes(number: object) -> float | None:
    return round(number / 1e9, 3) if isinstance(number, int | float) else None


def _learning(cohort: Cohort) -> Iterator[tuple[str, str]]:
    """Yield the learning curves of every model, with the line of the best baseline: name, SVG."""
    best = cohort.best
    value = best.get("best_rung_nrmse", best.get(f"input_{cohort.principal.name}"))
    named = str(best.get("best_rung", "input"))
    baseline = (named, float(value)) if isinstance(value, int | float) else None
    of_folds = [fold for fold in best.get("folds", []) if isinstance(fold, int)]
    for model in _models(cohort.paths):
        folds = {
            int(folder.name[5:]): FoldPaths(folder).progress_csv
            for folder in model.folder.glob("fold_*")
            if folder.name[5:].isdecimal()
        }
        figure = learning_curves(folds, _shown_columns(model.method), baseline, of_folds)
        if figure is not None:
            yield f"{model.method} {model.configuration}", as_svg(figure)


def _shown_columns(method: str) -> Any:
    """Return how the validation of a method is drawn; a method that is not installed any more has its plain names."""
    try:
        return getattr(validation_class_of(method_class(method)), "progress", AS_NAMED)
    except LongflowError:
        return AS_NAMED


# ---- results


def _subjects(cohort: Cohort) -> list[dict[str, Any]]:
    """List the mean of the principal number of each subject, best first."""
    rows = [row for row in predictions_of(cohort.rows, cohort.task) if cohort.principal.name in row]
    means = subject_means([row["subject"] for row in rows], [parse_number(row[cohort.principal.name]) for row in rows])
    ordered = sorted(means.items(), key=lambda one: one[1], reverse=cohort.principal.better == "higher")
    return [{"subject": subject, "mean": mean} for subject, mean in ordered]


def read_table_of_subjects(cohort: Cohort) -> dict[str, list[dict[str, str]]]:
    """Return the best and the worst subjects of subjects.csv; few subjects are all in the first list."""
    rows = [line.cells for line in read_table(cohort.paths.report / "subjects.csv")]
    if len(rows) <= 2 * SHOWN_SUBJECTS:
        return {"subjects, best first": rows} if rows else {}
    return {"best subjects": rows[:SHOWN_SUBJECTS], "worst subjects, the worst last": rows[-SHOWN_SUBJECTS:]}


def _link(cohort: Cohort) -> Any:
    """Return the function that gives the link to a subject's page, or None where there is no page."""

    def link(subject: str = "") -> str | None:
        if cohort.predictions is None:
            return None
        page = cohort.predictions / REPORT / (f"subject_{subject}.html" if subject else "index.html")
        return link_to(page, cohort.paths.report / "index.html") if page.is_file() else None

    return link


def _held_out(cohort: Cohort) -> list[NumberTable]:
    """Return the tables of the first part of metrics.json that has numbers: all subjects together."""
    found = number_tables({"overall": cohort.results["overall"]}) if "overall" in cohort.results else []
    return found or number_tables(cohort.results)[:1]


def _figures(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the PNG figures of a folder that are not too large for a page: name, base64."""
    for path in sorted(folder.glob("*.png")) if folder.is_dir() else []:
        if path.stat().st_size <= MOST_FIGURE_BYTES:
            yield path.stem, base64.b64encode(path.read_bytes()).decode("ascii")


def _comparisons(paths: DatasetPaths) -> Iterator[dict[str, Any]]:
    """Yield every finished comparison: name, table, figures."""
    folder = paths.results / "comparisons"
    for path in sorted(folder.glob("*/comparison.json")) if folder.is_dir() else []:
        content = read_json(path, dict)
        lines = {str(line.get("variant")): line for line in content.get("table", []) if isinstance(line, Mapping)}
        yield {
            "name": path.parent.name,
            "budget": content.get("budget"),
            "table": _comparison_table(lines),
            "costs": [{"variant": name, **line["cost"]} for name, line in lines.items() if "cost" in line],
            "failures": content.get("failures", []),
            "figures": list(_figures(ComparisonPaths(path.parent).folder)),
        }


def _comparison_table(lines: Mapping[str, Mapping[str, Any]]) -> NumberTable:
    """Return the numbers of a comparison: a row for each variant."""
    table = NumberTable("")
    for variant, line in lines.items():
        table.rows.append(variant)
        for name, number in line.items():
            if isinstance(number, Mapping) and {"mean", "interval"} <= set(number):
                table.columns += [name] if name not in table.columns else []
                table.cells[variant, name] = number
    return table


def _group_tables(groups: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[NumberTable]:
    """Yield the tables of subgroups: a row for each group."""
    for column, of_group in groups.items():
        table = NumberTable(column)
        for group, numbers in of_group.items():
            table.rows.append(group)
            table.columns += [name for name in numbers if name not in table.columns]
            table.cells |= {(group, name): number for name, number in numbers.items()}
        yield table
