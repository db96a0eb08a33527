"""What an import made, as lines of a table: the last thing that every import prints."""

from collections import Counter, defaultdict
from itertools import pairwise
from statistics import median

from longflow.importers.scans import ImportedDataset

#: most lines for what was excluded
MOST_EXCLUDED = 8


def summary_of(dataset: ImportedDataset) -> list[tuple[str, str]]:
    """Describe a dataset: subjects, scans, intervals, phases, labels, and what is excluded with the reasons.

    :param dataset: that was imported.
    :returns: (name, text) for each line.
    """
    times: dict[str, set[float]] = defaultdict(set)
    for scan in dataset.scans:
        times[scan.subject].add(scan.time)
    test = {scan.subject for scan in dataset.scans if scan.part != "training"}
    lines = [("subjects", f"{len(times)}{f', of which {len(test)} for tests' if test else ''}")]
    counts = sorted(Counter(scan.subject for scan in dataset.scans).values())
    lines.append(("scans", f"{len(dataset.scans)}{f', {_range(counts)} of each subject' if counts else ''}"))
    steps = sorted(after - before for of in times.values() for before, after in pairwise(sorted(of)))
    if steps:
        lines.append(("intervals", f"{_range(steps)} {dataset.time_unit}, median {median(steps):g}"))
    elif times:
        lines.append(("intervals", "none: every subject has one time, so nothing can be learned over time"))
    if phases := Counter(phase for scan in dataset.scans if (phase := scan.covariates.get("phase"))):
        lines.append(("phases", ", ".join(f"{phase} {count}" for phase, count in sorted(phases.items()))))
    if labelled := sum(scan.label is not None for scan in dataset.scans):
        lines.append(("labels", f"{labelled} of {len(dataset.scans)} scans"))
    shown = list(dataset.excluded[:MOST_EXCLUDED])
    if more := len(dataset.excluded) - len(shown):
        shown.append(f"and {more} more")
    lines += [("excluded" if place == 0 else "", text) for place, text in enumerate(shown)]
    return lines


def _range(values: list) -> str:
    """Return the first and the last of sorted numbers, human-readable."""
    return f"{values[0]:g}" if values[0] == values[-1] else f"{values[0]:g} to {values[-1]:g}"
