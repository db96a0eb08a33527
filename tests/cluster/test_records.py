import pytest

from longflow.cluster.records import SubmittedJob, last_job_of, read_jobs, write_jobs
from longflow.errors import ConfigurationError
from longflow.files import write_json

FIRST = SubmittedJob(name="a", number="7", steps=("train 0", "train 1"))
SECOND = SubmittedJob(name="b", number="9", steps=("train 1",))


def test_the_record_is_written_and_read(tmp_path):
    assert read_jobs(tmp_path / "jobs.json") == []
    write_jobs([FIRST, SECOND], tmp_path / "jobs.json")
    assert read_jobs(tmp_path / "jobs.json") == [FIRST, SECOND]


def test_the_last_job_of_a_step_counts():
    found = last_job_of([FIRST, SECOND])
    assert found == {"train 0": (FIRST, 0), "train 1": (SECOND, 0)}
    assert FIRST.element(1) == "7_1"


def test_another_file_is_refused(tmp_path):
    write_json({"jobs": [{"name": "a"}]}, tmp_path / "jobs.json")
    with pytest.raises(ConfigurationError, match=r"jobs\.0\.number: missing"):
        read_jobs(tmp_path / "jobs.json")
