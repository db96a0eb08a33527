"""Measurement noise of volumes: the segmenter on pairs of scans between which nothing changed.

The user names the pairs in a table with the columns ``case`` and ``repeat``: scans of imagesTr, of one subject each.
Only a person can say that nothing changed in between: two scans of one day, or of a short interval in a slow disease.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longflow.data.dataset import DatasetDescription, Scan, sidecar_path
from longflow.errors import DataError, first_few
from longflow.evaluation.repeatability import Repeatability, changed_subjects, repeatability
from longflow.parallel import Progress
from longflow.reading import read_json, read_table
from longflow.tasks.segment.predictor import Segmenter
from longflow.tasks.segment.requests import SegmentationRequest
from longflow.tasks.segment.segmented import write_label_maps

logger = logging.getLogger(__name__)

CASE, REPEAT = "case", "repeat"


@dataclass(frozen=True)
class RetestPair:
    """Two scans of one subject without change in between."""

    scan: Scan
    repeat: Scan


def read_retest_pairs(path: Path, scans: Mapping[str, Scan]) -> list[RetestPair]:
    """Read the table of pairs.

    :param path: of the table.
    :param scans: of imagesTr, by case.
    :raises DataError: a scan does not exist, a pair is of two subjects or of one scan, or is there twice; every
        problem is named.
    """
    pairs: list[RetestPair] = []
    problems: list[str] = []
    known: set[frozenset[str]] = set()
    for line in read_table(path, CASE, REPEAT):
        cases = line.cells[CASE], line.cells[REPEAT]
        if unknown := [case for case in cases if case not in scans]:
            problems.append(f"line {line.number}: imagesTr has no scan '{unknown[0]}'")
        elif cases[0] == cases[1]:
            problems.append(f"line {line.number}: '{cases[0]}' is paired with itself")
        elif scans[cases[0]].subject != scans[cases[1]].subject:
            subjects = f"{scans[cases[0]].subject} and {scans[cases[1]].subject}"
            problems.append(f"line {line.number}: '{cases[0]}' and '{cases[1]}' are of two subjects, {subjects}")
        elif frozenset(cases) in known:
            problems.append(f"line {line.number}: '{cases[0]}' and '{cases[1]}' are there twice")
        else:
            known.add(frozenset(cases))
            pairs.append(RetestPair(scans[cases[0]], scans[cases[1]]))
    if problems or not pairs:
        raise DataError(
            f"{path}: {first_few(problems) if problems else 'there is no pair'}. Expected: on each line two scans of "
            f"one subject ({CASE},{REPEAT}), both in imagesTr, between which nothing changed."
        )
    return pairs


def measure_retest(
    segmenter: Segmenter,
    pairs: Sequence[RetestPair],
    folder: Path,
    description: DatasetDescription,
    progress: Progress = lambda *_: None,
) -> dict[str, Repeatability]:
    """Segment the pairs, and estimate the repeatability of each structure's volume in ml; finished maps are kept.

    Pairs that differ more than all others explain are named in a warning. They stay in the estimate: it is then too
    large, so that fewer changes are called changes.

    :param folder: that the label maps are written to.
    :param description: of the dataset of the scans.
    :returns: by structure.
    :raises DataError: a scan cannot be segmented, or the pairs are of too few subjects.
    """
    scans = {scan.case: scan for pair in pairs for scan in (pair.scan, pair.repeat)}
    requests = [SegmentationRequest(scan) for scan in scans.values()]
    write_label_maps(segmenter, requests, folder, description, progress)
    volumes = {case: read_json(sidecar_path(folder, case), dict)["volumes"] for case in scans}
    subjects = [pair.scan.subject for pair in pairs]
    found, changed = {}, []
    for name in segmenter.structures:
        differences = [
            volumes[pair.scan.case][name]["volume_ml"] - volumes[pair.repeat.case][name]["volume_ml"] for pair in pairs
        ]
        found[name] = repeatability(subjects, differences)
        changed += [f"{one} ({name})" for one in changed_subjects(subjects, differences, len(segmenter.structures))]
    if changed:
        logger.warning(
            "Scans of the pairs differ far more than those of all others, as if something had changed in between: %s. "
            "Look at them. If something did change, remove the pair: with it, true changes are taken for noise.",
            first_few(changed),
        )
    return found
