"""Choose the subjects whose labels a training may use, and list their labelled scans."""

import re
from pathlib import Path
from unicodedata import normalize

import numpy as np

from longflow.errors import ConfigurationError, DataError, NotFoundError, first_few
from longflow.preprocessing.series import prepared_subjects, read_properties
from longflow.training.splits import Cohort


def choose_labelled(value: str, cohort: Cohort, seed: int) -> list[str]:
    """Choose the subjects whose labels a fold may use (``--labelled_subjects``).

    The other subjects serve self-supervised losses. With one seed, the subjects of a smaller number are among those of
    a larger number.

    :param value: a number of subjects, drawn among the training subjects that have labels; or the path of a file that
        names subjects, one in each line.
    :param cohort: of training.
    :param seed: of the draw.
    :returns: names of subjects, sorted.
    :raises NotFoundError: there is no such file.
    :raises ConfigurationError: the number is not between 1 and the number of subjects with labels, or the file names
        no subject, unknown subjects, subjects of the validation or subjects without labels.
    """
    labelled = sorted({subject for subject, _ in labelled_scans(cohort)})
    if re.fullmatch("[+-]?[0-9]{1,9}", value.strip()):
        return _drawn(int(value), labelled, seed)
    path = Path(value)
    if not path.is_file():
        raise NotFoundError(
            f"--labelled_subjects {value}: expected a number of subjects, or a text file with one subject in each "
            "line; there is no such file."
        )
    return _listed(path, labelled, cohort)


def _drawn(count: int, labelled: list[str], seed: int) -> list[str]:
    if not 1 <= count <= len(labelled):
        raise ConfigurationError(
            f"--labelled_subjects {count}: {len(labelled)} training subjects of this fold have labels; expected a "
            f"number from 1 to {len(labelled)}."
        )
    return sorted(np.random.default_rng(seed).permutation(labelled)[:count].tolist())


def _listed(path: Path, labelled: list[str], cohort: Cohort) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not a text file in UTF-8 with one subject in each line.") from error
    listed = sorted({normalize("NFC", line).strip() for line in lines if line.strip()})
    if not listed:
        raise ConfigurationError(f"{path} names no subject; expected one in each line.")
    known = set(prepared_subjects(cohort.folder))
    reasons = {
        "is no subject of this dataset (the column 'subject' of scans.csv)": set(listed) - known,
        "belongs to the validation of this fold, whose labels must not be trained on": known - set(cohort.scans),
        "has no label in labelsTr": set(cohort.scans) - set(labelled),
    }
    for reason, subjects in reasons.items():
        if wrong := [subject for subject in listed if subject in subjects]:
            raise ConfigurationError(f"{path}: {first_few(wrong)} {reason}.")
    return listed


def labelled_scans(cohort: Cohort) -> list[tuple[str, int]]:
    """List the scans of a cohort that have a label which may be used.

    :param cohort: the subjects.
    :returns: (subject, position in its series) of each scan.
    """
    subjects = [subject for subject in cohort.scans if cohort.labelled is None or subject in cohort.labelled]
    return [
        (subject, scan) for subject in subjects for scan in read_properties(cohort.folder, subject).scans_with_label
    ]


def require_labelled_scans(cohort: Cohort, purpose: str) -> list[tuple[str, int]]:
    """List the labelled scans of a cohort, at least one.

    :param cohort: the subjects.
    :param purpose: for the message, as "to train".
    :returns: as :func:`labelled_scans`.
    :raises DataError: there is none.
    """
    scans = labelled_scans(cohort)
    if not scans:
        raise DataError(
            f"None of the {len(cohort.scans)} subjects {purpose} ({first_few(cohort.scans)}) has a label. Add label "
            "images named as their scans to labelsTr and run longflow_preprocess, or give other subjects in "
            "splits_final.json."
        )
    return scans
