import numpy as np
import pytest

from longflow.data.dataset import read_description, training_series
from longflow.data.images import read_scan, write_volume
from longflow.errors import DataError
from longflow.evaluation.repeatability import repeatability
from longflow.inference.selection import select
from longflow.tasks.forecast.retest import measure_retest, read_retest_pairs
from longflow.tasks.segment.segmented import checked_segmenter
from tests.tasks.forecast.calibrating import THRESHOLDS, threshold_segmenter, volume_of


@pytest.fixture
def dataset(validated_dataset, monkeypatch):
    threshold_segmenter(monkeypatch, validated_dataset)
    return validated_dataset


@pytest.fixture
def scans(dataset):
    return {scan.case: scan for one in training_series(dataset.raw)[1] for scan in one.scans}


@pytest.fixture
def table(tmp_path):
    def write(*lines):
        (tmp_path / "pairs.csv").write_text("\n".join(("case,repeat", *lines)) + "\n")
        return tmp_path / "pairs.csv"

    return write


def test_differences_are_those_of_the_volumes(dataset, scans, table, tmp_path):
    pairs = read_retest_pairs(table(*(f"s{subject}_0,s{subject}_1" for subject in range(1, 6))), scans)
    description = read_description(dataset.raw / "dataset.json")
    segmenter = checked_segmenter(select("103"), "cpu", description.channels, dataset.name)
    found = measure_retest(segmenter, pairs, tmp_path / "retest", description)
    for name in THRESHOLDS:
        differences = [
            volume_of(dataset, pair.scan.case, name) - volume_of(dataset, pair.repeat.case, name) for pair in pairs
        ]
        expected = repeatability([pair.scan.subject for pair in pairs], differences)
        assert found[name].record() == pytest.approx(expected.record())


def test_a_pair_that_changed_is_named(dataset, scans, table, tmp_path, caplog):
    """The scans of all subjects are repeated exactly, but those of one."""
    for subject in range(1, 6):
        files = [dataset.raw / "imagesTr" / f"s{subject}_{place}_0000.nii.gz" for place in (0, 1)]
        first = read_scan((files[0],))
        repeated = first.array[0] + (100 if subject == 3 else 0)
        write_volume(repeated.astype(np.float32), first.geometry, "float32", files[1])
    pairs = read_retest_pairs(table(*(f"s{subject}_0,s{subject}_1" for subject in range(1, 6))), scans)
    description = read_description(dataset.raw / "dataset.json")
    segmenter = checked_segmenter(select("103"), "cpu", description.channels, dataset.name)
    found = measure_retest(segmenter, pairs, tmp_path / "retest", description)
    (message,) = (record.getMessage() for record in caplog.records if "as if something had changed" in record.message)
    assert "s3 (" in message and "s2" not in message
    assert found["whole"].coefficient > 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "there is no pair"),
        (("s1_0,s1_9",), "line 2: imagesTr has no scan 's1_9'"),
        (("s1_0,s1_1", "s1_2,"), "line 3: imagesTr has no scan ''"),
        (("s1_0,s1_0",), "line 2: 's1_0' is paired with itself"),
        (("s1_0,s2_0",), "'s1_0' and 's2_0' are of two subjects, s1 and s2"),
        (("s1_0,s1_1", "s1_1,s1_0"), "line 3: 's1_1' and 's1_0' are there twice"),
    ],
)
def test_pairs_that_cannot_be_used(scans, table, lines, message):
    with pytest.raises(DataError, match="Expected: on each line two scans") as error:
        read_retest_pairs(table(*lines), scans)
    assert message in str(error.value)


def test_a_table_that_is_missing_or_another(scans, table, tmp_path):
    with pytest.raises(DataError):
        read_retest_pairs(tmp_path / "none.csv", scans)
    path = table()
    path.write_text("a,b\ns1_0,s1_1\n")
    with pytest.raises(DataError, match="has no column case, repeat"):
        read_retest_pairs(path, scans)
