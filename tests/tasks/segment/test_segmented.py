import pytest

from longflow.errors import ConfigurationError
from longflow.files import write_json
from longflow.inference.selection import select
from longflow.paths import DatasetPaths
from longflow.tasks.segment.segmented import checked_segmenter, trained_on
from tests.tasks.forecast.segmenting import segmenter_dataset


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> DatasetPaths:
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return segmenter_dataset()


def test_subjects_that_the_segmenter_was_trained_on(dataset):
    segmenter = checked_segmenter(select("103"), "cpu", ["MR"], "the scans")
    assert trained_on(segmenter, ["s1", "s2"]) == []  # nothing is known
    write_json([{"train": ["s2", "s3"], "val": ["s1"]}, {"train": ["s1", "s3"], "val": ["s2"]}], dataset.splits)
    assert trained_on(segmenter, ["s1", "s2"]) == ["s2"]  # it has fold 0 alone
    write_json([], dataset.splits)
    assert trained_on(segmenter, ["s1", "s2"]) == []
    write_json([{"val": ["s1"]}], dataset.splits)
    with pytest.raises(ConfigurationError, match="does not name the training subjects of fold 0"):
        trained_on(segmenter, ["s1"])


def test_a_model_of_other_channels(dataset):
    with pytest.raises(ConfigurationError, match=r"1 channel \(MR\), but the scans have 2 channels \(T1, T2\)"):
        checked_segmenter(select("103"), "cpu", ["T1", "T2"], "the scans")
