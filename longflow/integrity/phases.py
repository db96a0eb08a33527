"""The integrity of contrast phases where the task is to translate: their names, and the pairs that are learnt from."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from longflow.data.dataset import PHASE, DatasetDescription, Row, is_name, parse_time
from longflow.data.phases import native_first
from longflow.errors import first_few
from longflow.integrity.problems import Problem, error, warning

FILE = "dataset.json"
AS_IN = "as native or arterial"

#: subjects with a pair that a fold needs: one to train on, one to validate on
FEWEST_PAIRED = 2
#: from this similarity on (0 to 1), a name is taken for another one that was written wrongly
MISSPELT = 0.8


def phase_problems(
    description: DatasetDescription, training: tuple[str, Sequence[Row]], *test: tuple[str, Sequence[Row]]
) -> list[Problem]:
    """Every problem of the column phase and of pairs. :param training, test: the name of a table, and its lines."""
    table, rows = training
    phases = expected_phases(description, rows)
    unclear = choice_problems(description, rows, phases)
    problems = unclear + [
        problem for name, lines in (training, *test) for problem in column_problems(lines, phases, name)
    ]
    if unclear or len(phases) < 2:
        return problems
    problems += further_phases(rows, phases, table, warning, "They are left out of training.")
    for name, lines in test:
        advice = "Take these lines out: a scan is translated from one of the two phases."
        problems += further_phases(lines, phases, name, error, advice)
    return problems + pair_problems(rows, phases, table)


def expected_phases(description: DatasetDescription, rows: Sequence[Row]) -> list[str]:
    """The phases that scans should have: those of dataset.json, else the two that most lines of the table have."""
    if description.phases:
        return list(description.phases)
    counts = Counter(phase for row in rows if (phase := phase_of(row)))
    return native_first(sorted(counts, key=lambda phase: (-counts[phase], phase))[:2])


def phase_of(row: Row) -> str:
    """What the column phase says; empty where it says nothing, or is missing."""
    return row.covariates.get(PHASE, "")


def column_problems(rows: Sequence[Row], phases: Sequence[str], table: str) -> list[Problem]:
    """Scans without a phase, and with one that was probably written wrongly. :param phases: the expected ones."""
    wanted = " or ".join(phases) or f"a name, {AS_IN}"
    without = [row for row in rows if not phase_of(row)]
    if rows and len(without) == len(rows):
        advice = f"Give the table a column 'phase', with the contrast phase of every scan, {AS_IN}."
        return [error(table, PHASE, "missing or empty", f"the phase of every scan: {wanted}", advice)]
    advice = "Write down the contrast phase in which the scan was acquired."
    problems = [error(table, f"line {row.line}: {PHASE}", "empty", wanted, advice) for row in without]
    advice = "If the nearest name is meant, write it so; capital letters count. Else take the line out."
    for row in rows:
        phase = phase_of(row)
        if phase and phase not in phases and (meant := _meant(phase, phases)):
            problems.append(error(table, f"line {row.line}: {PHASE}", f"'{phase}'", f"{meant}?", advice))
    return problems


def further_phases(
    rows: Sequence[Row], phases: Sequence[str], table: str, kind: Callable[..., Problem], advice: str
) -> list[Problem]:
    """Scans in a phase that is neither of the two, nor resembles one, in a line for each such phase."""
    cases: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        phase = phase_of(row)
        if phase and phase not in phases and not _meant(phase, phases):
            cases[phase].append(row.case)
    return [
        kind(table, PHASE, f"'{phase}' in {len(found)} lines ({first_few(found, most=2)})", " or ".join(phases), advice)
        for phase, found in sorted(cases.items())
    ]


def _meant(phase: str, phases: Sequence[str]) -> str | None:
    """The expected phase that a name resembles so much that it was probably meant."""
    folded = {expected.casefold(): expected for expected in phases}
    return next((folded[one] for one in get_close_matches(phase.casefold(), folded, n=1, cutoff=MISSPELT)), None)


def choice_problems(description: DatasetDescription, rows: Sequence[Row], phases: Sequence[str]) -> list[Problem]:
    """Whether it is clear which two phases are translated into each other.

    :param rows: of the training scans. :param phases: the expected ones.
    """
    found = sorted({phase_of(row) for row in rows} - {""})
    if not found:
        return []  # said already
    if missing := [phase for phase in description.phases if phase not in found]:
        advice = "Correct one of the two; capital letters count."
        held = f"phases that scans.csv has: {', '.join(found)}"
        return [error(FILE, f"phases.{phase}", "in no line of scans.csv", held, advice) for phase in missing]
    if strange := [phase for phase in phases if not is_name(phase)]:
        expected = "a name without slashes, not beginning with a point"
        advice = "It becomes part of the names of translations: rename it, as native or arterial."
        return [error("scans.csv", PHASE, f"'{strange[0]}'", expected, advice)]
    if len(found) < 2:
        advice = "Translation is learnt from pairs: add the scans in the other phase, and their lines."
        return [error("scans.csv", PHASE, f"{found[0]} in every line", "two phases", advice)]
    if not description.phases and any(_meant(one, phases) is None for one in found if one not in phases):
        advice = 'Say which two are translated, as "phases": ["native", "arterial"], that without contrast first.'
        return [error(FILE, "phases", "missing", f"two of {', '.join(found)}", advice)]
    return []


def pairs_of_rows(rows: Sequence[Row], phases: Sequence[str]) -> list[tuple[int, int]]:
    """Positions of the two scans of each pair among the lines of a subject."""
    if len(phases) < 2:
        return []
    first, second = (
        {parse_time(row.time): index for index, row in enumerate(rows) if phase_of(row) == phase} for phase in phases
    )
    return [(first[time], second[time]) for time in first if time is not None and time in second]


def pair_problems(rows: Sequence[Row], phases: Sequence[str], table: str) -> list[Problem]:
    """Subjects without a pair, scans outside pairs, and too few subjects with a pair.

    :param rows: of the training scans. :param phases: the two.
    """
    first, second = phases
    times: dict[str, dict[str, set[float]]] = {row.subject: {first: set(), second: set()} for row in rows}
    for row in rows:
        if phase_of(row) in phases and (time := parse_time(row.time)) is not None:
            times[row.subject][phase_of(row)].add(time)
    paired = {subject: own[first] & own[second] for subject, own in times.items()}
    problems = []
    for subject, own in sorted(times.items()):
        alone = [f"{phase} at {time:g}" for phase in phases for time in sorted(own[phase] - paired[subject])]
        if not alone:
            continue
        if paired[subject]:
            advice = "What has no fellow at its time is left out of training; the pairs of the subject are used."
        elif own[first] and own[second]:
            advice = (
                "The subject is left out of training. If both are of one examination, give them one time; the minutes "
                "between phases do not count."
            )
        else:
            advice = "The subject is left out of training. Add the other scan and its line, if there is one."
        expected = f"{first} and {second} at one time"
        problems.append(warning(table, f"subject {subject}", f"{' and '.join(alone)} alone", expected, advice))
    return problems + _too_few([subject for subject in sorted(paired) if paired[subject]], len(times), phases, table)


def _too_few(paired: Sequence[str], subjects: int, phases: Sequence[str], table: str) -> list[Problem]:
    if len(paired) >= FEWEST_PAIRED:
        return []
    found = f"{len(paired)} of {subjects} have a pair{f' ({paired[0]})' if paired else ''}"
    expected = f"{' and '.join(phases)} of {FEWEST_PAIRED} subjects at least"
    advice = (
        "A fold needs a subject with both phases to train on, and another to validate on. The scans of a pair have the "
        "same subject and the same time in the table."
    )
    kind = warning if paired else error
    return [kind(table, "subjects", found, expected, advice)]
