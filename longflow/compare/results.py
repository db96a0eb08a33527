"""Write the results of a comparison: the table as CSV and JSON, the metrics of every target, figures."""

from collections.abc import Sequence
from typing import Any

from longflow import __version__
from longflow.compare.comparison import Comparison, Run, reused
from longflow.compare.figures import OF_LINE, Cost, Line, cost_figure, learning_figure, line_figure
from longflow.compare.perform import Outcome
from longflow.compare.variant_table import TABLE_DEFINITIONS, Measured, correct_verdicts, flat, line_of
from longflow.compare.variants import Study
from longflow.files import write_csv, write_json
from longflow.tasks.forecast.comparison import FORECAST
from longflow.tasks.forecast.evaluation import columns
from longflow.tasks.forecast.ladder import LCI, RUNG_NAMES
from longflow.tasks.forecast.metrics import DEFINITIONS
from longflow.training.logbook import read_progress


def name_of(run: Run) -> str:
    """Name a run among those of its variant."""
    return f"fold {run.fold}, seed {run.seed}"


def lines_of(comparison: Comparison, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return a line of the table for every variant that has a result, in the requested order."""
    found = []
    for variant in comparison.variants:
        own = [outcome for outcome in outcomes if outcome.run.variant == variant and outcome.rows]
        if own:
            measured = [Measured(name_of(outcome.run), outcome.rows, outcome.cost) for outcome in own]
            found.append({**line_of(variant.name, measured), "settings": variant.settings})
    correct_verdicts(found)
    return found


def write_results(comparison: Comparison, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Write ``comparison.csv``, ``comparison.json`` and ``targets.csv``; return the lines of the table."""
    lines, paths = lines_of(comparison, outcomes), comparison.paths
    flat_lines = [flat(line) for line in lines]
    write_csv(list(flat_lines[0]) if flat_lines else ["variant"], flat_lines, paths.table_csv)
    best = {line["variant"]: line["best_rung"]["name"] for line in lines}
    rows = [
        {**row, "variant": outcome.run.variant.name, "fold": outcome.run.fold, "seed": outcome.run.seed}
        for outcome in outcomes
        for row in outcome.rows
        if row["method"] in (FORECAST, LCI, best[outcome.run.variant.name])
    ]
    write_csv(["variant", "fold", "seed", *columns()], rows, paths.targets_csv)
    content = {
        "dataset": comparison.dataset.name,
        "plans": comparison.plans.plans_name,
        "plan_identity": comparison.plans.identity(comparison.configuration),
        "configuration": comparison.configuration,
        "budget": comparison.budget.text,
        "device": comparison.device,
        "folds": list(comparison.folds),
        "seeds": list(comparison.seeds),
        "targets": {str(fold): str(comparison.targets[fold].folder) for fold in comparison.folds},
        "time_unit": comparison.plans.temporal.time_unit,
        "of_standard_results": [run.label for run in reused(comparison, [outcome.run for outcome in outcomes])],
        "failures": [{"run": outcome.run.label, "why": outcome.failure} for outcome in outcomes if outcome.failure],
        "definitions": {**DEFINITIONS, **TABLE_DEFINITIONS},
        "longflow_version": __version__,
        "table": lines,
    }
    write_json(content, paths.table_json)
    return lines


def draw_results(
    comparison: Comparison, outcomes: Sequence[Outcome], lines: Sequence[dict[str, Any]], study: Study | None = None
) -> list[str]:
    """Draw the figures; return the names of their files."""
    paths, drawn = comparison.paths, []
    measured = [line for line in lines if line["nrmse"]["mean"] is not None and line["variant"] != "lci"]
    if not measured:
        return []
    best = measured[0]["best_rung"]
    baselines = {"LCI": measured[0]["nrmse"]["lci"], RUNG_NAMES[best["name"]]: best["nrmse"]}
    costs = [
        Cost(
            line["variant"],
            line["nrmse"]["mean"],
            line["nrmse"]["sd"],
            *(line["cost"][name] for name in ("seconds", "seconds_per_prediction", "peak_memory")),
        )
        for line in measured
    ]
    cost_figure(costs, baselines, paths.figure("cost"))
    drawn.append("cost.png")
    by_horizon = [Line(line["variant"], _points(line["by_horizon"])) for line in measured]
    hides = study is not None and study.hides  # horizons count from the last scan that is not hidden
    if not hides and any(len(line.points) > 1 for line in by_horizon):
        unit = comparison.plans.temporal.time_unit
        bins = measured[0]["by_horizon"]
        rungs = {"LCI": _points(bins, "lci"), RUNG_NAMES[best["name"]]: _points(bins, "best_rung")}
        line_figure(by_horizon, rungs, f"horizon [{unit}]", paths.figure("horizon"))
        drawn.append("horizon.png")
    if study and study.axis:
        _draw_study(comparison, measured, study)
        drawn.append("study.png")
    if study and study.draw:
        drawn += study.draw(comparison, [outcome.run for outcome in outcomes if outcome.rows])
    if curves := learning_curves(comparison, outcomes):
        learning_figure(curves, validation_lci(comparison, outcomes), paths.figure("learning"))
        drawn.append("learning.png")
    return drawn


def _points(bins: Sequence[dict[str, Any]], baseline: str = "") -> list[tuple[float, float]]:
    """Return the middle of every bin of horizons, and its NRMSE. :param baseline: "lci" or "best_rung"; "": variant."""
    values = [(part, part[baseline] if baseline else part["nrmse"]["mean"]) for part in bins]
    return [((part["from"] + part["to"]) / 2, value) for part, value in values if value is not None]


def _draw_study(comparison: Comparison, lines: Sequence[dict[str, Any]], study: Study) -> None:
    """Draw the error against the setting of a study, with LCI from the same context scans."""
    variants = {variant.name: variant for variant in comparison.variants}
    points: dict[str, list[tuple[float, float]]] = {}
    spans: dict[str, list[tuple[float, float] | None]] = {}
    of_lci: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        variant = variants[line["variant"]]
        for name in variant.lines:
            points.setdefault(name, []).append((variant.x, line["nrmse"]["mean"]))
            spans.setdefault(name, []).append(line["nrmse"]["interval"])
            of_lci.setdefault(name, []).append((variant.x, line["nrmse"]["lci"]))
    drawn = [Line(name, points[name], spans[name]) for name in points]
    one = len({round(y, 12) for own in of_lci.values() for _, y in own}) == 1
    of_lci = {"LCI" if one else f"{OF_LINE}{name}": own for name, own in list(of_lci.items())[: 1 if one else None]}
    line_figure(drawn, of_lci, study.axis, comparison.paths.figure("study"), log=study.logarithmic)


def learning_curves(comparison: Comparison, outcomes: Sequence[Outcome]) -> dict[str, list[list[tuple[float, float]]]]:
    """Read, by training, a curve for each run: (seconds, validation NRMSE)."""
    curves: dict[str, dict[tuple[int, int], list[tuple[float, float]]]] = {}
    for run in (outcome.run for outcome in outcomes if outcome.run.variant.trains):
        records = read_progress(comparison.fold(run).progress_csv)
        found = [(record.seconds, record.found["nrmse"]) for record in records if record.found.get("nrmse")]
        if found:
            curves.setdefault(run.variant.training, {})[run.fold, run.seed] = found
    return {training: list(runs.values()) for training, runs in curves.items()}


def validation_lci(comparison: Comparison, outcomes: Sequence[Outcome]) -> float | None:
    """Return the NRMSE of LCI on the validation targets, mean over folds."""
    of_fold = {}
    for run in (outcome.run for outcome in outcomes if outcome.run.variant.trains):
        for record in read_progress(comparison.fold(run).progress_csv):
            if record.found.get("lci_nrmse"):
                of_fold[run.fold] = record.found["lci_nrmse"]
    return sum(of_fold.values()) / len(of_fold) if of_fold else None
