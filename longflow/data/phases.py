"""Contrast phases: the two phases of a dataset, and the pairs of scans that differ only in their phase."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from longflow.data.dataset import DatasetDescription, Scan, Series, is_name
from longflow.errors import DataError
from longflow.schema import LONGEST_PHASE

#: names of a phase without contrast; it is the phase at t = 0, as in MFM
NATIVE_NAMES = ("native", "noncontrast", "non-contrast", "unenhanced", "plain", "nc", "ncct", "nect", "pre", "t1")


@dataclass(frozen=True)
class PhasePair:
    """Two scans of a subject at one time.

    :param first: in the phase at t = 0.
    :param second: in the phase at t = 1.
    """

    first: Scan
    second: Scan


def phases_of_dataset(description: DatasetDescription, all_series: Sequence[Series]) -> list[str]:
    """Choose the two phases of a dataset.

    ``phases`` of dataset.json counts if given. Otherwise the table must have exactly two phases. The phase without
    contrast is first (``NATIVE_NAMES``), else the first in the alphabet.

    :param description: dataset.json.
    :param all_series: series of all subjects.
    :returns: two names, the phase at t = 0 first.
    :raises DataError: there are not two phases, more than two without a choice, or one cannot be part of a file's name.
    """
    found = sorted({scan.phase for series in all_series for scan in series.scans} - {""})
    if description.phases:
        if missing := [phase for phase in description.phases if phase not in found]:
            raise DataError(
                f"dataset.json names the phase '{missing[0]}', but the column 'phase' of scans.csv holds "
                f"{', '.join(found) or 'nothing'}. Correct one of them; capital letters count."
            )
        return list(description.phases)
    if len(found) != 2:
        holds = f"holds {', '.join(found)}" if found else "is missing or empty"
        hint = (
            'Name two of them in dataset.json, as "phases": ["native", "arterial"], the one without contrast first.'
            if len(found) > 2
            else "Enter for every scan the phase in which it was acquired, as native or arterial."
        )
        raise DataError(f"The column 'phase' of scans.csv {holds}; expected two contrast phases. {hint}")
    if strange := [phase for phase in found if not is_name(phase, LONGEST_PHASE)]:
        raise DataError(
            f"The phase '{strange[0]}' in the column 'phase' of scans.csv cannot be part of a file's name, but the "
            f"names of predictions contain it. Rename it: no slashes, no point at the beginning, {LONGEST_PHASE} bytes."
        )
    return native_first(found)


def native_first(phases: Iterable[str]) -> list[str]:
    """Sort names of phases: the phase without contrast first, the others in the alphabet.

    >>> native_first(["arterial", "native"])
    ['native', 'arterial']
    """
    return sorted(phases, key=lambda phase: (phase.casefold() not in NATIVE_NAMES, phase))


def phase_pairs(series: Series, phases: Sequence[str]) -> list[PhasePair]:
    """Find the pairs of a subject: its scans of one time in both phases.

    :param series: the subject.
    :param phases: the two phases.
    :returns: in order of time.
    """
    first, second = ({scan.time: scan for scan in series.scans if scan.phase == phase} for phase in phases)
    return [PhasePair(first[time], second[time]) for time in sorted(first) if time in second]


def in_pairs(series: Series, phases: Sequence[str]) -> Series:
    """Keep only the scans of a subject's pairs, in their order."""
    cases = {scan.case for pair in phase_pairs(series, phases) for scan in (pair.first, pair.second)}
    return Series(series.subject, tuple(scan for scan in series.scans if scan.case in cases))
