"""The model card: what a model was trained on, what it is for, where its limits are, how it performs, also by subgroup.

After Mitchell et al., Model Cards for Model Reporting (FAT* 2019). It names no subject.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from longflow.data.dataset import PHASE, REQUIRED_COLUMNS, Row
from longflow.evaluation.metric import Metric
from longflow.evaluation.summary import summary
from longflow.files import file_digest
from longflow.inference.output import INTENDED_USE
from longflow.paths import DatasetPaths, ModelPaths
from longflow.reading import parse_number
from longflow.report.tables import few_subjects
from longflow.task import Task
from longflow.version import __version__

#: a column with more values is no grouping, unless they are numbers
MOST_GROUPS = 8

Cells = Mapping[str, str]


def model_card(
    dataset: DatasetPaths,
    task: Task,
    plans: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    best: Mapping[str, Any],
    results: Mapping[str, Any],
    performance: Mapping[str, Any],
) -> dict[str, Any]:
    """Make the card of the model that ``longflow_predict`` uses; what is not known is null.

    :param plans: content of the plans, or empty.
    :param fingerprint: content of the fingerprint, or empty.
    :param best: content of best.json, or empty.
    :param results: content of metrics.json of held-out predictions, or empty.
    :param performance: :func:`performance`.
    """
    temporal = fingerprint.get("temporal", {})
    return {
        "model": {
            "dataset": dataset.name,
            "task": task.words.summary,
            "chosen": best.get("candidate"),
            "members": [_member(dataset, one) for one in best.get("members", [])],
            "longflow_version": __version__,
        },
        "intended_use": INTENDED_USE,
        "training_data": {
            "subjects": len(fingerprint["subjects"]) if "subjects" in fingerprint else None,
            "time_unit": temporal.get("time_unit"),
            "scans_per_subject": temporal.get("scans_per_subject"),
            "intervals": temporal.get("intervals"),
            "spans": temporal.get("spans"),
            "channels": plans.get("channel_names"),
            "labels": plans.get("labels"),
            "phases": plans.get("phases"),
            "ranges": _ranges(plans),
        },
        "limits": list(_limits(plans, fingerprint, results)),
        "performance": dict(performance),
    }


def _ranges(plans: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the ranges of the training data, without the fitness gate's reference, which is of no use to readers."""
    found = plans.get("training_data")
    return {key: one for key, one in found.items() if key != "fitness"} if isinstance(found, Mapping) else None


def _member(dataset: DatasetPaths, member: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a model of the chosen ensemble, with the digests of its weights."""
    try:
        names = [str(member[key]) for key in ("method", "plans_name", "configuration")]
        folds = [int(fold) for fold in member["folds"]]
    except (KeyError, TypeError, ValueError):
        return dict(member)
    paths: ModelPaths = dataset.model(*names)
    weights = {f"fold_{fold}": paths.fold(fold).final for fold in folds}
    return dict(member) | {"weights": {name: file_digest(path) for name, path in weights.items() if path.is_file()}}


def _limits(plans: Mapping[str, Any], fingerprint: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """Say in words where the model was not trained or not tested."""
    yield "Predictions are synthetic: a trained model made them. They can show what is not there, and miss what is."
    temporal = plans.get("temporal", {})
    unit = temporal.get("time_unit", "")
    for key, sentence in (
        ("longest_horizon", "Horizons beyond {} {} were not trained on; each prediction says so in its sidecar."),
        ("shortest_interval", "Subjects whose scans are closer than {} {} were rare or absent in training."),
    ):
        if isinstance(temporal.get(key), int | float):
            yield sentence.format(f"{temporal[key]:g}", unit)
    subjects = len(fingerprint.get("subjects", []))
    if subjects:
        yield (
            f"It was trained on {subjects} subjects of one dataset. Other scanners, protocols and populations than "
            "those of this dataset were not tested."
        )
    overall = results.get("overall")
    if not results:
        yield "There are no results on held-out subjects: nothing is known about its errors on new patients."
        return
    number = (
        overall.get("subjects", results.get("subjects")) if isinstance(overall, Mapping) else results.get("subjects")
    )
    if isinstance(number, int) and number and (sentence := few_subjects(number)):
        yield sentence
    rung = overall.get("best_rung") if isinstance(overall, Mapping) else None
    if isinstance(rung, Mapping) and rung.get("verdict") != "better":
        found = {"tie": "not better than", "worse": "worse than"}.get(str(rung.get("verdict")))
        yield (
            f"On held-out subjects it was {found} the best forecast without training ({rung.get('name')})."
            if found
            else "Whether it is better than the best forecast without training is unknown: there are too few subjects."
        )
    if seen := results.get("subjects_of_training"):
        yield f"{len(seen)} of the evaluated subjects are training subjects: the results say little about new ones."


def performance(
    rows: Sequence[Cells], scans: Sequence[Row], metrics: Sequence[Metric], task: Task
) -> dict[str, dict[str, dict[str, Any]]]:
    """Summarise held-out results over all subjects, and over those of each subgroup.

    :param rows: of metrics.csv.
    :param scans: of the tables of the test scans: their further columns are the groupings.
    :param metrics: that are summarised.
    :returns: by grouping ("all subjects" first), group and number: as :func:`longflow.evaluation.summary.summary`.
    """
    own = list(predictions_of(rows, task))
    if not own:
        return {}
    found = {"all subjects": {"all": _summaries(own, metrics)}}
    for column, value_of in _groupings(scans).items():
        groups: dict[str, list[Cells]] = {}
        for row in own:
            groups.setdefault(value_of(row), []).append(row)
        if len(groups) > 1:
            found[column] = {group: _summaries(groups[group], metrics) for group in sorted(groups)}
    return found


def predictions_of(rows: Sequence[Cells], task: Task) -> Iterator[Cells]:
    """Yield the rows that are of predictions; some tables also have those of baselines or of inputs."""
    column = next((name for row in rows for name, cell in row.items() if cell == task.words.one), None)
    yield from (row for row in rows if column is None or row[column] == task.words.one)


def _summaries(rows: Sequence[Cells], metrics: Sequence[Metric]) -> dict[str, dict[str, Any]]:
    return {
        metric.name: summary([row["subject"] for row in rows], [parse_number(row[metric.name]) for row in rows])
        for metric in metrics
        if metric.name in rows[0]
    }


def _groupings(scans: Sequence[Row]) -> dict[str, Any]:
    """Return, by further column of the tables, the function that gives the group of a row of metrics.csv."""
    columns = list(dict.fromkeys(column for scan in scans for column in scan.covariates))
    found = {}
    for column in columns:
        values = {scan.covariates.get(column, "") for scan in scans} - {""}
        if column in REQUIRED_COLUMNS or len(values) < 2 or (len(values) > MOST_GROUPS and not _are_numbers(values)):
            continue
        found[column] = _group_of(column, scans, _middle(values) if len(values) > MOST_GROUPS else None)
    if len(found) > 1 and PHASE in found:
        found = {PHASE: found.pop(PHASE), **found}
    return found


def _group_of(column: str, scans: Sequence[Row], middle: float | None) -> Any:
    """Return the function for one column. :param middle: numbers are grouped below and above; None: by value."""
    of_case = {scan.case: scan.covariates.get(column, "") for scan in scans}
    of_subject: dict[str, set[str]] = {}
    for scan in scans:
        of_subject.setdefault(scan.subject, set()).add(scan.covariates.get(column, ""))

    def group(row: Cells) -> str:
        values = of_subject.get(row["subject"], set())
        value = of_case.get(row.get("case", "")) or (next(iter(values)) if len(values) == 1 else "")
        number = parse_number(value)
        if not value:
            return "not recorded, or it changes"
        if middle is None or number is None:
            return value
        return f"up to {middle:g}" if number <= middle else f"above {middle:g}"

    return group


def _are_numbers(values: set[str]) -> bool:
    return all(parse_number(value) is not None for value in values)


def _middle(values: set[str]) -> float:
    """Return the median of the values, rounded down to one of them."""
    numbers = sorted(number for value in values if (number := parse_number(value)) is not None)
    return numbers[(len(numbers) - 1) // 2]
