"""Choose the scans of a dataset among the series of an export: one for each visit, or for each visit and phase.

A dataset has one modality and one unit of time. Of several series of a visit, the one whose protocol most visits have
is proposed. Ties are left to a person.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

from longflow.data.phases import NATIVE_NAMES
from longflow.dicom.survey import ASK, NO, YES, Finding, counts_of_visits, protocol_of

UNITS = {"days": "single volumes", "ms": "cines", "s": "perfusion series"}


def choose(findings: Sequence[Finding], by_phase: bool, wanted: str = "") -> list[Finding]:
    """Propose the use of every finding that has none yet.

    :param findings: of a survey.
    :param by_phase: the task pairs two contrast phases of a visit; else a visit has one scan.
    :param wanted: text that the description of a scan must contain; empty: every series counts.
    :returns: the findings in their order, each with ``use`` "yes", "no" or "ask".
    """
    answer = {finding.id: finding for finding in findings}

    def decide(ids: Iterable[str], use: str, reason: str) -> None:
        for name in ids:
            answer[name] = answer[name].decided(use, reason)

    def undecided() -> list[Finding]:
        return [finding for finding in answer.values() if not finding.use]

    if wanted:
        known = [one for one in answer.values() if one.stack and one.use != NO]
        others = [one.id for one in known if wanted.casefold() not in one.instance.description.casefold()]
        decide(others, NO, f"its description does not contain '{wanted}'")
    _choose_modality(undecided(), decide)
    units = Counter(finding.unit for finding in undecided())
    if len(units) > 1:
        found = " and ".join(f"{count} {UNITS[unit]}" for unit, count in units.items())
        decide(
            [one.id for one in undecided()], ASK, f"the export has {found}: use one kind, a dataset has one time unit"
        )
    elif by_phase and units and "days" in units:
        _choose_phases(undecided(), decide)
    _choose_in_visits(undecided(), decide, by_phase)
    decide([one.id for one in undecided()], YES, "")
    return [_with_labels(answer[finding.id], answer) for finding in findings]


def _with_labels(finding: Finding, answer: dict[str, Finding]) -> Finding:
    """Use labels only where their series is not excluded."""
    if finding.labels_of and finding.use == YES and answer[finding.labels_of[0]].use == NO:
        return finding.decided(NO, "their series is not used")
    return finding


def _choose_modality(findings: Sequence[Finding], decide) -> None:
    visits = Counter(
        modality for _, _, modality in {(one.subject, one.time, one.instance.modality) for one in findings}
    )
    if len(visits) < 2:
        return
    (first, most), (_, second) = visits.most_common(2)
    if most == second:
        tied = [one.id for one in findings if visits[one.instance.modality] == most]
        decide(tied, ASK, f"a dataset has one modality, the export has {' and '.join(visits)}")
    others = [one for one in findings if visits[one.instance.modality] < most]
    for one in others:
        decide([one.id], NO, f"{one.instance.modality}: most visits have {first}")


def _choose_phases(findings: Sequence[Finding], decide) -> None:
    """Keep the two phases that most visits have together."""
    decide([one.id for one in findings if not one.phase.phase], ASK, "which phase? Enter it")
    visits: dict[tuple[str, float | None], set[str]] = defaultdict(set)
    for one in findings:
        if one.phase.phase:
            visits[one.subject, one.time].add(one.phase.phase)
    pairs = Counter(pair for phases in visits.values() for pair in combinations(sorted(phases), 2))
    if not pairs:
        return
    best = max(pairs.values())
    tied = [pair for pair, count in pairs.items() if count == best]
    with_native = [pair for pair in tied if set(pair) & set(NATIVE_NAMES)] or tied
    of_phases = [one for one in findings if one.phase.phase]
    if len(with_native) > 1:
        said = " or ".join(" and ".join(pair) for pair in with_native)
        decide([one.id for one in of_phases], ASK, f"a translation pairs two phases: {said}?")
        return
    chosen = with_native[0]
    others = [one for one in of_phases if one.phase.phase not in chosen]
    decide([one.id for one in others], NO, f"the phases {' and '.join(chosen)} are used, which most visits have")


def _choose_in_visits(findings: Sequence[Finding], decide, by_phase: bool) -> None:
    """Keep one series of each visit (and phase), or of each subject where series are over time."""
    counts = counts_of_visits(findings)
    groups: dict[tuple, list[Finding]] = defaultdict(list)
    for one in findings:
        moment = (one.time, one.phase.phase if by_phase else "") if one.unit == "days" else ()
        groups[(one.subject, *moment)].append(one)
    for group in groups.values():
        if len(group) == 1:
            continue
        most = max(counts[protocol_of(one)] for one in group)
        best = [one for one in group if counts[protocol_of(one)] == most]
        others = [one.id for one in group if counts[protocol_of(one)] < most]
        name = best[0].instance.description or best[0].id
        decide(others, NO, f"'{name}' is used, which more visits have" if len(best) == 1 else "more visits have others")
        if len(best) > 1:
            what = "visit" if best[0].unit == "days" else "subject"
            decide([one.id for one in best], ASK, f"{len(best)} series of this {what} could be the scan: keep one")
