"""The fingerprint of contrast phases: the pairs of a dataset, and the scans that are excluded."""

from collections import Counter

from pydantic import BaseModel, ConfigDict, Field

from longflow.data.dataset import DatasetDescription, Series
from longflow.data.phases import in_pairs, phases_of_dataset
from longflow.errors import DataError, first_few
from longflow.fingerprint.spatial import ChannelIntensities


class PhaseFingerprint(BaseModel):
    """The pairs of a dataset with contrast phases: two scans of a subject at one time, one in each phase."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] = Field(min_length=2, max_length=2, description="the phase at t = 0, then the phase at t = 1")
    pairs: int = Field(ge=1)
    without_pair: list[str] = Field(description="subjects without a pair")
    single: list[str] = Field(
        description="cases of the other subjects in one of the phases, without a counterpart at their time"
    )
    other_phases: dict[str, int] = Field(description="number of scans in each further phase")
    intensities: dict[str, dict[str, ChannelIntensities]] = Field(
        default={}, description="by phase and channel number, where the phases are different modalities"
    )

    def excluded(self) -> list[str]:
        """Describe the subjects and scans that are not used, human-readable."""
        parts = []
        if self.without_pair:
            parts.append(f"{_counted(self.without_pair, 'subject')} without a pair ({first_few(self.without_pair)})")
        if self.single:
            parts.append(
                f"{_counted(self.single, 'scan')} without a counterpart at the same time ({first_few(self.single)})"
            )
        if self.other_phases:
            phases = ", ".join(f"{number} {phase or 'without one'}" for phase, number in self.other_phases.items())
            parts.append(f"scans in other phases ({phases})")
        return parts


def paired_series(description: DatasetDescription, all_series: list[Series]) -> tuple[PhaseFingerprint, list[Series]]:
    """Select the scans that belong to a pair.

    :param description: dataset.json.
    :param all_series: series of the scans that have images.
    :returns: the phases and numbers of a dataset; the series of the selected scans.
    :raises DataError: there are not two phases, or no pair.
    """
    phases = phases_of_dataset(description, all_series)
    paired = {series.subject: in_pairs(series, phases) for series in all_series}
    scans = [scan for series in all_series for scan in series.scans]
    in_phases = [scan for scan in scans if scan.phase in phases]
    used = {scan.case for series in paired.values() for scan in series.scans}
    if not used:
        raise DataError(
            f"No subject has a scan in the phase {phases[0]} and one in the phase {phases[1]} at the same time, so "
            "there is no pair to learn from. Expected: both scans of a pair share the columns 'subject' and 'time' of "
            "scans.csv; only their phases differ."
        )
    found = PhaseFingerprint(
        names=phases,
        pairs=len(used) // 2,
        without_pair=[subject for subject, series in paired.items() if not series.scans],
        single=[scan.case for scan in in_phases if scan.case not in used and paired[scan.subject].scans],
        other_phases=dict(sorted(Counter(scan.phase for scan in scans if scan.phase not in phases).items())),
    )
    return found, [series for series in paired.values() if series.scans]


def _counted(names: list[str], word: str) -> str:
    return f"{len(names)} {word}{'' if len(names) == 1 else 's'}"
