import csv
import logging

import pytest

from longflow.errors import DataError
from longflow.paths import FoldPaths
from longflow.training.logbook import EpochRecord, Logbook, read_progress


def record(epoch, nrmse=0.5):
    return EpochRecord(epoch, 10 * epoch, 1.5 * epoch, 0.25, 1e-4, 1.5, 0.1, {"nrmse": nrmse, "lci_nrmse": 0.6})


@pytest.fixture
def paths(tmp_path):
    return FoldPaths(tmp_path)


def test_an_epoch_that_is_recorded_again_has_one_line(paths):
    log = Logbook(paths, 0)
    for nrmse in (0.5, 0.4):
        log.add(record(1, nrmse=nrmse))
    log.close()
    assert read_progress(paths.progress_csv) == [record(1, nrmse=0.4)]


def test_records_are_read_back_with_gaps(paths):
    log = Logbook(paths, 0)
    log.add(record(1))
    log.add(record(2, nrmse=None))
    log.close()
    assert read_progress(paths.progress_csv) == [record(1), record(2, nrmse=None)]
    with open(paths.progress_csv, newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["nrmse"] == "" and rows[0]["epoch"] == "1"
    assert any(paths.tensorboard.iterdir())


def test_going_on_drops_what_lies_after_the_checkpoint(paths):
    log = Logbook(paths, 0)
    for epoch in (1, 2, 3):
        log.add(record(epoch))
    log.close()
    log = Logbook(paths, 20)
    assert [entry.epoch for entry in log.records] == [1, 2]
    log.add(record(3, nrmse=0.4))
    log.close()
    assert read_progress(paths.progress_csv) == [record(1), record(2), record(3, nrmse=0.4)]


def test_starting_from_scratch_forgets(paths):
    log = Logbook(paths, 0)
    log.add(record(1))
    log.close()
    log = Logbook(paths, 0)
    log.close()
    assert log.records == [] and paths.log.read_text() == ""


def test_messages_go_to_the_file_until_the_book_is_closed(paths):
    logger = logging.getLogger("longflow.training.anything")
    log = Logbook(paths, 0)
    logger.warning("heard")
    log.close()
    logger.warning("not heard")
    log = Logbook(paths, 10)
    logger.warning("heard again")
    log.close()
    text = paths.log.read_text()
    assert "WARNING heard\n" in text and "heard again" in text and "not heard" not in text


def test_columns_that_come_later_are_empty_before(paths):
    """Terms of the loss are there from the first epoch on; a validation may come later."""
    log = Logbook(paths, 0)
    log.add(EpochRecord(1, 10, 1.5, 0.25, 1e-4, 1.5, 0.1, {"loss_dice": 0.3}))
    log.add(EpochRecord(2, 20, 3.0, 0.20, 1e-4, 1.5, 0.1, {"loss_dice": 0.2, "dice": 0.8}))
    log.close()
    first, second = read_progress(paths.progress_csv)
    assert first.found == {"loss_dice": 0.3, "dice": None} and second.found == {"loss_dice": 0.2, "dice": 0.8}


def test_no_file_no_records(paths):
    assert read_progress(paths.progress_csv) == []


def test_a_log_file_that_is_a_link_is_not_followed(paths, tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    paths.folder.mkdir(parents=True, exist_ok=True)
    paths.log.symlink_to(target)
    for first_iteration in (0, 10):
        with pytest.raises(DataError, match=r"training\.log is a link or no regular file"):
            Logbook(paths, first_iteration)
    assert target.read_text() == "precious"


@pytest.mark.parametrize(
    "content", [b"text", b"\xff\xfe", b"epoch,iteration\n1,x\n", b"epoch,iteration\n1,nan\n", b"a\n1,2\n"]
)
def test_a_table_of_something_else_is_explained(paths, content):
    paths.progress_csv.write_bytes(content + b"\n1")
    with pytest.raises(DataError, match="is not the table of epochs that longflow_train writes"):
        read_progress(paths.progress_csv)
