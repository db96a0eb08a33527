"""The test protocol: which scans of the test subjects are forecast, and from which, drawn once and stored.

Every method and every command is then measured on the same targets and context scans. ``longflow_verify
--test_protocol`` draws it into ``test_protocol.json``, next to ``imagesTs``; ``longflow_predict`` and
``longflow_compare`` make the requests of it, and ``longflow_evaluate`` finds the reference of a target by its name.

Validation targets of folds are stored apart (:mod:`longflow.tasks.forecast.targets`).
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from longflow.data.dataset import DatasetDescription, Series, series_of_folder
from longflow.errors import ConfigurationError, DataError, LongflowError, first_few
from longflow.files import write_json
from longflow.paths import protocol_path
from longflow.reading import read_json
from longflow.tasks.forecast.targets import ForecastTarget, in_order, random_context, read_targets, spread_positions

logger = logging.getLogger(__name__)

#: raised whenever the file would have another meaning
FORMAT = 1

Contexts = Literal["random", "all"]


@dataclass(frozen=True)
class ProtocolSettings:
    """How a protocol is drawn.

    :param contexts: "random": each scan that may be given is, with probability 1/2, at least one (CRONOS C.2); "all".
    :param least_gap: least distance of the last context scan from the target, in scans. 1: the scan right before the
        target may be given; 4: the three before it are not, as in the authors' code for ACDC.
    :param targets_per_subject: most targets of a subject. It has no meaning where rows without an image are the
        targets.
    :param seed: of the draw.
    """

    contexts: Contexts = "random"
    least_gap: int = 1
    targets_per_subject: int = 1
    seed: int = 12345

    def __str__(self) -> str:
        return f"{self.contexts} contexts, least gap {self.least_gap}, seed {self.seed}"


@dataclass(frozen=True)
class TestProtocol:
    """The forecasts that test subjects are measured on.

    :param targets: each a different scan; its context are all scans that are given.
    """

    __test__ = False  # the name is not that of a class of tests

    settings: ProtocolSettings
    targets: tuple[ForecastTarget, ...]


def draw_protocol(all_series: Sequence[Series], settings: ProtocolSettings) -> TestProtocol:
    """Draw targets and context scans of test subjects.

    Where rows have no image, these are the targets: their references are elsewhere, as in ``targetsTs``. Otherwise the
    scans themselves are drawn, spread over the subjects and over each subject's series. A context has scans with
    images before the target only, those of ``least_gap`` and more scans before it.

    :param all_series: of the test subjects, in order.
    :param settings: of the draw.
    :returns: the protocol, by subject and time.
    :raises DataError: no scan can be a target.
    """
    generator = np.random.default_rng(settings.seed)
    cases = {series.subject: [scan.case for scan in series.scans] for series in all_series}
    requested = [
        (series.subject, position)
        for series in all_series
        for position, scan in enumerate(series.scans)
        if not scan.exists
    ]
    eligible = {subject: names for subject, names in cases.items() if len(names) > settings.least_gap}
    positions = requested or spread_positions(
        eligible, settings.targets_per_subject, generator, least=settings.least_gap
    )
    given = {scan.case for series in all_series for scan in series.scans if scan.exists}
    targets, without = [], [] if requested else sorted(set(cases) - set(eligible))
    for subject, position in positions:
        names = cases[subject]
        earlier = [name for name in names[: max(0, position + 1 - settings.least_gap)] if name in given]
        if not earlier:
            without.append(names[position])
            continue
        context = random_context(earlier, generator) if settings.contexts == "random" else tuple(earlier)
        targets.append(ForecastTarget(subject, names[position], context))
    if not targets:
        raise DataError(
            f"No test subject has a scan that can be forecast with --least_gap {settings.least_gap}: it needs a scan "
            f"at least {settings.least_gap} before it in its series. Found the subjects {first_few(cases)}. Give a "
            "smaller gap."
        )
    if without:
        logger.warning(
            "Excluded from the test protocol, since no scan is %d or more before a target: %s.",
            *(settings.least_gap, first_few(without)),
        )
    return TestProtocol(settings, tuple(targets))


def write_protocol(raw: Path, description: DatasetDescription, settings: ProtocolSettings) -> tuple[Path, TestProtocol]:
    """Draw the protocol of a dataset and store it; one that is there already stays if it is the same.

    :param raw: folder of the raw dataset.
    :returns: the file and the protocol.
    :raises DataError: there are no test subjects, or none that can be forecast.
    :raises ConfigurationError: a setting is out of its range, or another protocol is stored.
    """
    if min(settings.least_gap, settings.targets_per_subject) < 1 or settings.seed < 0:
        raise ConfigurationError(
            f"The settings of the test protocol are {asdict(settings)}; expected a gap of 1 or more, 1 or more targets "
            "per subject, and a seed of 0 or more."
        )
    images, path = raw / "imagesTs", protocol_path(raw)
    if not images.is_dir():
        raise DataError(
            f"{raw} has no imagesTs, so there are no test subjects to draw a protocol for. Put their scans there, with "
            "a scans.csv."
        )
    protocol = draw_protocol(series_of_folder(images, description), settings)
    if not path.exists():
        write_json({"format": FORMAT, **asdict(settings), "targets": list(map(asdict, protocol.targets))}, path)
    elif (stored := read_protocol(path)) != protocol:
        other = "other scans" if stored.settings == settings else f"{stored.settings}"
        raise ConfigurationError(
            f"{path} holds another protocol ({other}), and this one would be drawn with {settings}. Results with both "
            "cannot be compared. Keep the stored one, or delete the file and run the command again."
        )
    return path, protocol


def read_protocol(path: Path) -> TestProtocol:
    """Read a stored protocol.

    :param path: the file.
    :raises DataError: it is not a protocol of this version.
    """
    content = read_json(path, dict)
    try:
        settings = ProtocolSettings(**{field.name: content[field.name] for field in fields(ProtocolSettings)})
        targets = tuple(read_targets(content["targets"]))
    except (KeyError, TypeError) as error:
        raise _not_a_protocol(path) from error
    if content.get("format") != FORMAT or not _is_valid(settings, targets):
        raise _not_a_protocol(path)
    return TestProtocol(settings, targets)


def _not_a_protocol(path: Path) -> DataError:
    return DataError(
        f"{path} is not a test protocol of this version of longflow. Restore the file, or delete it and draw the "
        "protocol with longflow_verify --test_protocol."
    )


def _is_valid(settings: ProtocolSettings, targets: Sequence[ForecastTarget]) -> bool:
    """Tell whether all fields have the right types."""
    numbers: list[Any] = [settings.least_gap, settings.targets_per_subject, settings.seed]
    names: list[Any] = [name for one in targets for name in (one.subject, one.target, *one.context)]
    return (
        settings.contexts in ("random", "all")
        and all(isinstance(number, int) for number in numbers)
        and all(isinstance(name, str) for name in names)
    )


def protocol_of_folder(images: Path, all_series: Sequence[Series]) -> TestProtocol | None:
    """Return the stored protocol of a folder ``imagesTs``; None where there is none.

    :param images: an input folder.
    :param all_series: its series.
    :returns: the protocol, which fits the series.
    :raises DataError: it names scans that the folder does not have, or gives scans too near to or after the target; or
        the folder requests a scan that it does not name.
    """
    images = images.absolute()
    path = protocol_path(images.parent)
    if images.name != "imagesTs" or not path.is_file():
        return None
    protocol = read_protocol(path)
    if problems := _misfits(protocol, all_series):
        raise DataError(
            f"{path} does not fit {images}: {first_few(problems)}. Restore the scans and the table that the protocol "
            "was drawn for, or delete the file and draw another one with longflow_verify --test_protocol."
        )
    named = {target.subject for target in protocol.targets}
    if others := [series.subject for series in all_series if series.subject not in named]:
        logger.warning("Not forecast, since %s has no target of them: %s.", path.name, first_few(others))
    return protocol


def _misfits(protocol: TestProtocol, all_series: Sequence[Series]) -> list[str]:
    """Say why a protocol cannot be used with these series; empty where it can."""
    cases = {series.subject: [scan.case for scan in series.scans] for series in all_series}
    missing = {scan.case for series in all_series for scan in series.scans if not scan.exists}
    problems = []
    for target in protocol.targets:
        names = cases.get(target.subject, [])
        if not in_order((*target.context, target.target), names):
            problems.append(f"{target.target} of subject {target.subject} and its context are not in the table")
        elif lost := sorted(missing.intersection(target.context)):
            problems.append(f"{lost[0]}, which {target.target} is forecast from, has no image")
        elif not target.context:
            problems.append(f"{target.target} has no context scan")
        elif names.index(target.target) - names.index(target.context[-1]) < protocol.settings.least_gap:
            problems.append(f"{target.context[-1]} is nearer to {target.target} than the gap allows")
    targets = [target.target for target in protocol.targets]
    if repeated := {name for name in targets if targets.count(name) > 1}:
        problems.append(f"{first_few(sorted(repeated))} is a target twice")
    # where scans are requested, these are the targets
    problems += [f"{name} is requested, but no target" for name in sorted(missing.difference(targets))]
    return problems


def protocol_misfit(raw: Path, description: DatasetDescription) -> str | None:
    """Say why the stored protocol of a dataset cannot be used; None where it can, or where there is none.

    :param raw: folder of the raw dataset.
    """
    if not protocol_path(raw).is_file():
        return None
    images = raw / "imagesTs"
    try:
        protocol_of_folder(images, series_of_folder(images, description) if images.is_dir() else [])
    except LongflowError as error:
        return str(error)
    return None
