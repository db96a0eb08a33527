from pathlib import Path

import pytest

from longflow.errors import ConfigurationError
from longflow.importers.scans import ImportedScan, all_scans_as_context, last_scans_as_targets, times_of_scans

SCANS = [ImportedScan(f"a_{time}", "a", float(time), Path("x")) for time in (3, 0, 1)]


def parts(scans):
    return {scan.case: scan.part for scan in scans}


def test_the_last_scans_of_a_test_subject_are_targets():
    assert parts(last_scans_as_targets(SCANS, 1)) == {"a_3": "target", "a_0": "context", "a_1": "context"}
    assert parts(last_scans_as_targets(SCANS, 2)) == {"a_3": "target", "a_0": "context", "a_1": "target"}


@pytest.mark.parametrize("targets", [0, 3])
def test_at_least_one_scan_is_context_and_one_a_target(targets):
    with pytest.raises(ConfigurationError, match=f"--test_targets {targets}: subject a has 3 scans"):
        last_scans_as_targets(SCANS, targets)


def test_all_scans_can_be_context():
    assert set(parts(all_scans_as_context(SCANS, 1)).values()) == {"context"}


def test_times_are_collected_by_subject():
    assert times_of_scans([*SCANS, ImportedScan("b", "b", 7.0, Path("x"))]) == {"a": [3, 0, 1], "b": [7]}
