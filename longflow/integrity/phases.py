"""The integrity of contrast phases: their names, and the pairs that a task which uses phases learns from."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from longflow.data.dataset import PHASE, DatasetDescription, Row, is_name, parse_time
from longflow.data.phases import native_first
from longflow.errors import first_few
from longflow.integrity.problems import DATASET_JSON, Problem, error, warning
from longflow.schema import LONGEST_PHASE

AS_IN = "as native or arterial"

#: fewest subjects with a pair: a fold needs one to train on and one to validate on
FEWEST_PAIRED = 2
#: a name of at least this similarity (0 to 1) to an expected name is taken for a misspelling of it
MISSPELT = 0.8


def phase_problems(
    description: DatasetDescription, training: tuple[str, Sequence[Row]], *test: tuple[str, Sequence[Row]]
) -> list[Problem]:
    """Find every problem of the column phase and of pairs.

    :param description: dataset.json.
    :param training: path of the table of the training scans in messages, and its lines.
    :param test: the same for the test scans.
    :returns: the problems.
    """
    table, rows = training
    phases = expected_phases(description, rows)
    unclear = choice_problems(description, rows, phases)
    problems = unclear + [
        problem for name, lines in (training, *test) for problem in column_problems(lines, phases, name)
    ]
    if unclear or len(phases) < 2:
        return problems
    problems += further_phases(rows, phases, table, warning, "They are excluded from training.")
    for name, lines in test:
        advice = "Remove these lines: an input scan must be in one of the two phases."
        problems += further_phases(lines, phases, name, error, advice)
    return problems + pair_problems(rows, phases, table)


def expected_phases(description: DatasetDescription, rows: Sequence[Row]) -> list[str]:
    """Return the phases that scans should have.

    :param description: dataset.json; its ``phases`` count if given.
    :param rows: else the two most frequent phases of these lines count.
    :returns: at most two names, the phase without contrast first.
    """
    if description.phases:
        return list(description.phases)
    counts = Counter(phase for row in rows if (phase := phase_of(row)))
    return native_first(sorted(counts, key=lambda phase: (-counts[phase], phase))[:2])


def phase_of(row: Row) -> str:
    """Return the cell of the column phase; empty where the cell is empty or the column is missing."""
    return row.covariates.get(PHASE, "")


def column_problems(rows: Sequence[Row], phases: Sequence[str], table: str) -> list[Problem]:
    """Find scans without a phase, and scans whose phase is probably misspelt.

    :param rows: lines of the table.
    :param phases: the expected phases.
    :param table: path of the table in messages.
    :returns: the problems.
    """
    expected = " or ".join(phases) or f"a name, {AS_IN}"
    without = [row for row in rows if not phase_of(row)]
    if rows and len(without) == len(rows):
        advice = f"Add a column 'phase' with the contrast phase of every scan, {AS_IN}."
        return [error(table, PHASE, "missing or empty", f"the phase of every scan: {expected}", advice)]
    advice = "Enter the contrast phase in which the scan was acquired."
    problems = [error(table, f"line {row.line}: {PHASE}", "empty", expected, advice) for row in without]
    advice = "Write the name as expected, if it is meant; capital letters count. Otherwise remove the line."
    for row in rows:
        phase = phase_of(row)
        if phase and phase not in phases and (meant := _meant(phase, phases)):
            problems.append(error(table, f"line {row.line}: {PHASE}", f"'{phase}'", f"{meant}?", advice))
    return problems


def further_phases(
    rows: Sequence[Row], phases: Sequence[str], table: str, kind: Callable[..., Problem], advice: str
) -> list[Problem]:
    """Find scans in a phase that neither is nor resembles one of the two.

    :param rows: lines of the table.
    :param phases: the two phases.
    :param table: path of the table in messages.
    :param kind: severity, as a function that makes the problem.
    :param advice: the remedy.
    :returns: one problem for each such phase.
    """
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
    """Return the expected phase that a name probably means; None where it resembles none."""
    folded = {expected.casefold(): expected for expected in phases}
    return next((folded[one] for one in get_close_matches(phase.casefold(), folded, n=1, cutoff=MISSPELT)), None)


def choice_problems(description: DatasetDescription, rows: Sequence[Row], phases: Sequence[str]) -> list[Problem]:
    """Check that dataset and table agree on two phases.

    :param description: dataset.json.
    :param rows: lines of the training scans.
    :param phases: the expected phases.
    :returns: the problems; empty where the two phases are clear, or the table names none.
    """
    found = sorted({phase_of(row) for row in rows} - {""})
    if not found:
        return []  # reported already
    if missing := [phase for phase in description.phases if phase not in found]:
        advice = "Correct dataset.json or scans.csv; capital letters count."
        held = f"phases that scans.csv has: {', '.join(found)}"
        return [error(DATASET_JSON, f"phases.{phase}", "in no line of scans.csv", held, advice) for phase in missing]
    if strange := [phase for phase in phases if not is_name(phase, LONGEST_PHASE)]:
        expected = f"a name without slashes, not beginning with a point, {LONGEST_PHASE} bytes at most"
        advice = "The name becomes part of file names. Rename the phase, as native or arterial."
        return [error("scans.csv", PHASE, f"'{strange[0][:80]}'", expected, advice)]
    if len(found) < 2:
        advice = "Training needs pairs of scans: add the scans in the other phase, and their lines."
        return [error("scans.csv", PHASE, f"{found[0]} in every line", "two phases", advice)]
    if not description.phases and any(_meant(one, phases) is None for one in found if one not in phases):
        advice = 'Name the two phases, as "phases": ["native", "arterial"], the one without contrast first.'
        return [error(DATASET_JSON, "phases", "missing", f"two of {', '.join(found)}", advice)]
    return []


def pairs_of_rows(rows: Sequence[Row], phases: Sequence[str]) -> list[tuple[int, int]]:
    """Return the positions of the two scans of each pair.

    :param rows: lines of one subject.
    :param phases: the two phases.
    :returns: (first, second) positions in ``rows``.
    """
    if len(phases) < 2:
        return []
    first, second = (
        {parse_time(row.time): index for index, row in enumerate(rows) if phase_of(row) == phase} for phase in phases
    )
    return [(first[time], second[time]) for time in first if time is not None and time in second]


def pair_problems(rows: Sequence[Row], phases: Sequence[str], table: str) -> list[Problem]:
    """Find subjects without a pair, scans outside pairs, and too few subjects with a pair.

    :param rows: lines of the training scans.
    :param phases: the two phases.
    :param table: path of the table in messages.
    :returns: the problems.
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
            advice = "Scans without a counterpart at their time are excluded; the pairs of the subject are used."
        elif own[first] and own[second]:
            advice = (
                "The subject is excluded from training. If both scans are of one examination, give both the same time: "
                "the minutes between phases do not count."
            )
        else:
            advice = "The subject is excluded from training. Add the other scan and its line, if there is one."
        expected = f"{first} and {second} at one time"
        problems.append(warning(table, f"subject {subject}", f"{' and '.join(alone)} alone", expected, advice))
    return problems + _too_few([subject for subject in sorted(paired) if paired[subject]], len(times), phases, table)


def _too_few(paired: Sequence[str], subjects: int, phases: Sequence[str], table: str) -> list[Problem]:
    if len(paired) >= FEWEST_PAIRED:
        return []
    found = f"{len(paired)} of {subjects} have a pair{f' ({paired[0]})' if paired else ''}"
    expected = f"{' and '.join(phases)} of {FEWEST_PAIRED} subjects at least"
    advice = (
        "A fold needs one subject with both phases to train on and another to validate on. The scans of a pair have "
        "the same subject and the same time in the table."
    )
    kind = warning if paired else error
    return [kind(table, "subjects", found, expected, advice)]
