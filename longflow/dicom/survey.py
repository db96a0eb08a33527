"""Say what an export holds: a finding for each stack, label file and kind of other file, with a proposed use.

What can be decided by headers is decided, with the reason. What is ambiguous is left to a person (``use`` is "ask").
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import chain
from typing import NamedTuple

from longflow.dicom.files import Export
from longflow.dicom.headers import Frame, Instance
from longflow.dicom.labels import name_of_structure, time_point_of
from longflow.dicom.moments import parse_date
from longflow.dicom.phases import Guess, guess_phase
from longflow.dicom.stacks import BY_NUMBER_ALONE, Stack, stacks_of, words_of
from longflow.errors import first_few

YES, NO, ASK = "yes", "no", "ask"
#: column of scans.csv with the R-R interval of a cine
PERIOD = "period"

#: image types of slices that were computed from others of the export
REFORMATS = ("MPR", "REFORMATTED", "MIP", "MINIP", "MAXIP", "PROJECTION IMAGE", "CURVED", "VOLUME_RENDERING", "VRT")
LOCALISER = re.compile(r"locali[sz]er|scout|topogram|surview|scanogram|survey|3[\s_-]?plane", re.IGNORECASE)
#: most slices of one direction of a localiser
MOST_OF_LOCALISER = 15
#: days by which an acquisition may be apart from its study: studies can go past midnight
APART = 1

UNKNOWN = Guess("", "")

#: (PatientID, its issuer); of a file without PatientID, ("", StudyInstanceUID)
Patient = tuple[str, str]


@dataclass(frozen=True)
class Finding:
    """A row of ``series.csv``, and what it stands for.

    :param use: "yes", "no" or "ask". ``reason``: why.
    :param subject: name in the dataset. ``time``: days since the subject's first study; None: unknown.
    :param times: of a series over time, in ``unit``.
    :param stack: the slices; None: labels, or files that are no image.
    :param label: a label file. ``labels_of``: id of the stack that it belongs to, and the time point there.
    :param files: number of files.
    """

    id: str
    patient: Patient
    instance: Instance
    files: int
    use: str = ""
    reason: str = ""
    subject: str = ""
    time: float | None = None
    phase: Guess = UNKNOWN
    times: tuple[float, ...] = ()
    stack: Stack | None = None
    label: Instance | None = None
    labels_of: tuple[str, int] | None = None

    @property
    def unit(self) -> str:
        """Return the unit of its times: "days" for a visit."""
        return self.stack.unit if self.stack else ""

    @property
    def structures(self) -> list[str]:
        """Return the names of the structures of a label file."""
        return [name_of_structure(number, name) for number, name in self.label.structures] if self.label else []

    def decided(self, use: str, reason: str) -> "Finding":
        """Return it with a decision; an earlier reason is kept in front."""
        return replace(self, use=use, reason="; ".join(filter(None, (self.reason, reason))))


class TimePoint(NamedTuple):
    """A scan of a finding.

    :param case: its name in a dataset.
    :param time: in the unit of the finding.
    :param frames: its slices.
    """

    case: str
    time: float
    frames: Sequence[Frame]


def time_points(finding: Finding, by_phase: bool) -> list[TimePoint]:
    """List the scans of a stack: one of a visit, or one for each time of a series over time.

    :param finding: with its stack.
    :param by_phase: a visit has a scan for each contrast phase, which the names then say.
    """
    if finding.unit != "days":
        return [
            TimePoint(f"{finding.subject}_frame{place:03d}", time, frames)
            for place, (time, frames) in enumerate(zip(finding.times, finding.stack.points, strict=True))
        ]
    day = f"{finding.time:04.0f}" if float(finding.time).is_integer() else f"{finding.time:g}"
    phase = f"_{finding.phase.phase}" if by_phase and finding.phase.phase else ""
    return [TimePoint(f"{finding.subject}_day{day}{phase}", finding.time, frames) for frames in finding.stack.points]


@dataclass(frozen=True)
class Survey:
    """What an export holds.

    :param findings: in order of patient, date and series.
    :param first_dates: date of the first study of each patient that has one.
    :param names: names of each patient in the headers.
    """

    findings: Sequence[Finding]
    first_dates: Mapping[Patient, date] = field(default_factory=dict)
    names: Mapping[Patient, str] = field(default_factory=dict)


def patient_of(instance: Instance) -> Patient:
    """Return the patient of a file."""
    return (instance.patient_id, instance.issuer) if instance.patient_id else ("", instance.study_uid)


def survey_export(export: Export, subjects: Mapping[Patient, str] | None = None, today: date | None = None) -> Survey:
    """Describe an export, before series are chosen among those that can be used.

    :param export: as :func:`longflow.dicom.files.read_export` returns it.
    :param subjects: names of subjects from an earlier survey; other patients become P001, P002 ...
    :param today: no study is later; None: the current date.
    :returns: the findings; ``use`` is empty where nothing speaks against a stack.
    """
    patients = sorted({patient_of(instance) for instance in export.instances if instance.series_uid})
    named = name_subjects(patients, subjects or {})
    dates = _first_dates(export.instances)
    stacks = stacks_of(export.frames)
    found = [_of_stack(stack) for stack in stacks]
    found += [_of_label(instance, found) for instance in export.instances if instance.is_label and not instance.problem]
    found += _of_others(instance for instance in export.instances if instance.problem)
    findings = []
    for finding in found:
        day, first = parse_date(finding.instance.study_date), dates.get(finding.patient)
        time = float((day - first).days) if day and first else None
        findings.append(replace(finding, subject=named.get(finding.patient, ""), time=time))
    findings = _question_patients(findings)
    findings = [_question_times(finding, today or date.today()) for finding in findings]
    findings.sort(key=lambda one: (one.subject, one.time or 0.0, one.instance.series_uid, one.stack is None))
    names: dict[Patient, set[str]] = defaultdict(set)
    for instance in export.instances:
        names[patient_of(instance)].add(instance.patient_name)
    return Survey(findings, dates, {patient: " / ".join(sorted(of)) for patient, of in names.items()})


def name_subjects(patients: Iterable[Patient], known: Mapping[Patient, str]) -> dict[Patient, str]:
    """Give every patient a name that says nothing about them.

    >>> name_subjects([("77", ""), ("8", "")], {("8", ""): "P001"})
    {('77', ''): 'P002', ('8', ''): 'P001'}
    """
    free = (name for number in range(1, 100_000) if (name := f"P{number:03d}") not in set(known.values()))
    return {patient: known.get(patient) or next(free) for patient in patients}


def _first_dates(instances: Iterable[Instance]) -> dict[Patient, date]:
    """Return the date of the first study of each patient."""
    first: dict[Patient, date] = {}
    for instance in instances:
        patient = patient_of(instance)
        if day := parse_date(instance.study_date):
            first[patient] = min(day, first.get(patient, day))
    return first


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:10]


def _of_stack(stack: Stack) -> Finding:
    one = stack.instance
    start = one.contrast_start
    seconds = (
        stack.acquired - start if start is not None and stack.acquired is not None and stack.unit == "days" else None
    )
    # the description of a series cannot say which of its stacks is which
    phase = guess_phase("" if stack.told_apart else one.description, one.contrast, seconds)
    if stack.unit != "days":
        phase = UNKNOWN
    files = len({frame.instance.path for frame in chain(*stack.points)})
    times = stack.times if stack.unit != "days" else ()
    finding = Finding(stack.id, patient_of(one), one, files, phase=phase, times=times, stack=stack)
    if stack.told_apart and stack.unit == "days":
        finding = replace(finding, reason=f"one of several stacks of its series, by {stack.told_apart}")
    for remark in stack.remarks:
        finding = replace(finding, reason="; ".join(filter(None, (finding.reason, remark))))
    if reason := _against(stack):
        return finding.decided(NO, reason)
    if BY_NUMBER_ALONE in stack.remarks:
        return replace(finding, use=ASK)
    if {"DERIVED", "SECONDARY"} <= set(stack.points[0][0].image_type[:2]):
        return finding.decided(ASK, "a derived image (DERIVED\\SECONDARY): is it an acquisition?")
    if one.burned_in:
        return finding.decided(ASK, "text is burned into the pixels (BurnedInAnnotation)")
    if phase.doubtful:
        return finding.decided(ASK, f"which phase? {phase.reason}")
    return finding


def _against(stack: Stack) -> str:
    """Tell why a stack is no scan; empty where it is one."""
    kind, slices = stack.points[0][0].image_type, len(stack.points[0])
    if "LOCALIZER" in kind or (LOCALISER.search(stack.instance.description) and slices <= MOST_OF_LOCALISER):
        return "a localiser"
    if words := [word for word in kind if word in REFORMATS or word.startswith("CSA")]:
        return f"a reformat of other slices ({words[0]})"
    if stack.problem:
        return stack.problem
    if slices == 1:
        return "one slice, no volume"
    return ""


def _of_label(label: Instance, stacks: Sequence[Finding]) -> Finding:
    """Describe a label file, and find the stack that it belongs to."""
    finding = Finding(_digest([label.sop_uid]), patient_of(label), label, 1, label=label)
    for other in stacks:
        if other.patient != finding.patient:
            continue
        point = time_point_of(label, other.stack)
        if point is not None and (len(stacks) == 1 or _shares_instance(label, other.stack, stacks)):
            names = first_few(finding.structures)
            what = f"labels of '{other.instance.description}' ({other.id}): {names}"
            return replace(finding, labels_of=(other.id, point)).decided(YES, what)
    return finding.decided(NO, "labels of a series that is not in the export, or of several of its times alike")


def _shares_instance(label: Instance, stack: Stack, stacks: Sequence[Finding]) -> bool:
    """Tell whether labels refer to slices of a stack, or to the only stack of its series."""
    if any(frame.instance.sop_uid in label.references for point in stack.points for frame in point):
        return True
    uid = stack.instance.series_uid
    return sum(other.instance.series_uid == uid for other in stacks if other.stack) == 1


def _of_others(instances: Iterable[Instance]) -> list[Finding]:
    """Describe the files that are no image, one finding for each series and reason."""
    groups: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for instance in instances:
        # damaged files have sizes in their reasons, which differ: one row for each of them
        groups[instance.series_uid or str(instance.path), instance.problem].append(instance)
    found = []
    for (_, problem), group in groups.items():
        name = f" ({group[0].path.name})" if len(group) == 1 else ""
        digest = _digest(one.sop_uid or str(one.path) for one in group)
        found.append(Finding(digest, patient_of(group[0]), group[0], len(group)).decided(NO, problem + name))
    return found


def _question_patients(findings: Sequence[Finding]) -> list[Finding]:
    """Ask where the headers do not say whose files these are."""
    names: dict[Patient, set[str]] = defaultdict(set)
    patients: dict[str, set[Patient]] = defaultdict(set)
    issuers: dict[str, set[str]] = defaultdict(set)
    for finding in findings:
        if finding.stack:
            name = re.sub(r"[\s^]+", " ", finding.instance.patient_name).strip().casefold()
            names[finding.patient] |= {f"{name}, born {finding.instance.birth_date or '?'}"}
            patients[finding.instance.series_uid].add(finding.patient)
            issuers[finding.instance.patient_id].add(finding.instance.issuer)
    answer = []
    for finding in findings:
        if finding.stack and finding.use in ("", YES):
            if not finding.instance.patient_id:
                finding = finding.decided(ASK, "no PatientID: enter the subject")
            elif len(patients[finding.instance.series_uid]) > 1:
                finding = finding.decided(ASK, "files of two patients in one series: is the subject right?")
            elif len(found := issuers[finding.instance.patient_id]) > 1 and "" in found:
                finding = finding.decided(ASK, "one PatientID with and without its issuer: is it one patient?")
            elif len(names[finding.patient]) > 1:
                who = first_few(sorted(names[finding.patient]), most=3)
                finding = finding.decided(ASK, f"one PatientID, but several persons ({who}): is the subject right?")
        answer.append(finding)
    return answer


def _question_times(finding: Finding, today: date) -> Finding:
    """Ask where the date of a visit cannot be right."""
    if not finding.stack or finding.use not in ("", YES) or finding.unit != "days":
        return finding
    study, acquired = parse_date(finding.instance.study_date), parse_date(finding.instance.acquisition_date)
    if study is None:
        return finding.decided(ASK, f"no date of the study ('{finding.instance.study_date}'): enter the time")
    if study > today:
        return finding.decided(ASK, f"the date of the study, {study}, lies in the future: correct the time")
    if acquired and abs((acquired - study).days) > APART:
        said = f"clocks differ: acquired on {acquired}, but the study is of {study}. Correct the time"
        return finding.decided(ASK, said)
    return finding


def protocol_of(finding: Finding) -> tuple[str, str, str]:
    """Return what the same acquisition at another visit shares: modality, description without digits, phase."""
    return finding.instance.modality, words_of(finding.instance.description), finding.phase.phase


def counts_of_visits(findings: Iterable[Finding]) -> Counter[tuple[str, str, str]]:
    """Count the visits that have each protocol."""
    return Counter(protocol for _, _, protocol in {(one.subject, one.time, protocol_of(one)) for one in findings})
