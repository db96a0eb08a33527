"""The scans of a folder to translate, and the requested phase."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longflow.data.dataset import PHASE, DatasetDescription, Scan, rows_of_folder
from longflow.errors import ConfigurationError, DataError, first_few, unknown_name
from longflow.inference.requests import scans_with_images
from longflow.task import get_task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TranslationRequest:
    """One scan to translate.

    :param source: the acquired scan.
    :param target: the requested scan, of the same subject and time in the other phase.
    """

    source: Scan
    target: Scan

    @classmethod
    def of(cls, source: Scan, phase: str) -> "TranslationRequest":
        """Request a scan in another phase: case ``{source case}_{phase}``."""
        further = {**source.covariates, PHASE: phase}
        return cls(source, Scan(f"{source.case}_{phase}", source.subject, source.time, (), covariates=further))

    def provenance(self) -> dict[str, Any]:
        """Return the fields of the sidecar that say which scan is translated, and from which phase to which."""
        return {
            "case": self.target.case,
            "subject": self.target.subject,
            "time": self.target.time,
            "source": self.source.case,
            "source_phase": self.source.phase,
            "target_phase": self.target.phase,
            "images": [path.name for path in self.source.images],
        }


def translation_requests(
    folder: Path, description: DatasetDescription, phases: Sequence[str], requested: str | None
) -> list[TranslationRequest]:
    """List the scans of a folder that are not in the requested phase; the others are excluded, and named in the log.

    The phase of each scan comes from the folder's table.

    :param phases: of the model, that at t = 0 first.
    :param requested: a phase; None: the other one, where all scans are in one phase.
    :returns: a request for each scan, by subject and time.
    :raises NotFoundError: the model does not know the requested phase.
    :raises ConfigurationError: every scan is in that phase already; or none is requested and both phases exist.
    :raises DataError: there is no scan; a scan has no phase or an unknown one, lacks a channel or has one too many.
    """
    if requested is not None and requested not in phases:
        raise unknown_name("phase", requested, phases, hint="(--to, the phases that the model was trained with.)")
    scans = scans_with_images(folder, description, get_task("translate").words)
    _check_phases(folder, scans, phases)
    counts = {phase: sum(scan.phase == phase for scan in scans) for phase in phases}
    if requested is None and all(counts.values()):
        raise ConfigurationError(
            f"{folder} holds scans of both phases ({', '.join(f'{counts[phase]} {phase}' for phase in phases)}). "
            f"Request a phase with --to {phases[0]} or --to {phases[1]}."
        )
    first, second = phases
    target = requested or (second if counts[first] else first)
    sources = [scan for scan in scans if scan.phase != target]
    if not sources:
        raise ConfigurationError(
            f"Every scan of {folder} is in the phase '{target}' already ({len(scans)} scans): there is nothing to "
            f"translate. The other phase is '{first if target == second else second}'."
        )
    if excluded := [scan.case for scan in scans if scan.phase == target]:
        logger.info("Scans that are in the phase '%s' already are excluded: %s.", target, first_few(excluded))
    return [TranslationRequest.of(scan, target) for scan in sources]


def _check_phases(folder: Path, scans: Sequence[Scan], phases: Sequence[str]) -> None:
    """Refuse scans without a phase, or in a phase that the model does not know."""
    lines = {row.case: row.line for row in rows_of_folder(folder)}
    expected = " or ".join(phases)
    if not any(scan.phase for scan in scans):
        raise DataError(
            f"The table of {folder} gives no phase: its column '{PHASE}' is missing or empty, from line "
            f"{lines[scans[0].case]} (case {scans[0].case}) on. Add it, with the phase in which each scan was "
            f"acquired: {expected}."
        )
    wrong = [
        f"  {scan.case} (line {lines[scan.case]}): "
        + (f"its phase is '{scan.phase}'" if scan.phase else "it has no phase")
        + f", expected {expected}."
        for scan in scans
        if scan.phase not in phases
    ]
    if wrong:
        raise DataError(
            f"{folder} cannot be translated. Correct the column '{PHASE}' of its table; capital letters count:\n"
            + "\n".join(wrong)
        )
