"""Record a training: a CSV, TensorBoard, a log file."""

import csv
import logging
from dataclasses import dataclass, field, fields
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from longflow.errors import DataError
from longflow.files import open_in_place, write_csv
from longflow.paths import FoldPaths


@dataclass(frozen=True)
class EpochRecord:
    """One line of progress.csv.

    :param epoch: counted from 1.
    :param iteration: number of updates so far.
    :param seconds: of training so far, over all sessions.
    :param loss: mean of the epoch.
    :param learning_rate: of the last update.
    :param epoch_seconds: of this epoch, validation included.
    :param data_wait_share: share of the training time of this epoch spent waiting for data.
    :param found: further columns: terms of the loss, scores of the validation; None in epochs without validation.
    """

    epoch: int
    iteration: int
    seconds: float
    loss: float
    learning_rate: float
    epoch_seconds: float
    data_wait_share: float
    found: dict[str, float | None] = field(default_factory=dict)

    @property
    def row(self) -> dict[str, float | None]:
        """The values by column of progress.csv."""
        return {name: getattr(self, name) for name in COLUMNS} | self.found


#: the columns of every progress.csv
COLUMNS = [column.name for column in fields(EpochRecord) if column.name != "found"]


class Logbook:
    """The records of a fold. A resumed run drops the records after the iteration that it resumes from.

    :param paths: of the fold.
    :param first_iteration: of this session; 0 starts from scratch.
    """

    def __init__(self, paths: FoldPaths, first_iteration: int):
        self.paths = paths
        self.records = [
            record
            for record in read_progress(paths.progress_csv)
            if first_iteration and record.iteration <= first_iteration
        ]
        self.log = open_in_place(paths.log)
        self.board = SummaryWriter(str(paths.tensorboard), purge_step=first_iteration)
        if not first_iteration:
            self.log.truncate(0)
        self.handler = logging.StreamHandler(self.log)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("longflow")
        self.level = logger.level
        # the file gets every epoch; the handler of the screen chooses its own level
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self.handler)

    def add(self, record: EpochRecord) -> None:
        """Add an epoch to the CSV and to TensorBoard.

        A run that was killed just after its last epoch was recorded records it again: the new record counts.
        """
        self.records = [*(one for one in self.records if one.iteration != record.iteration), record]
        rows = [one.row for one in self.records]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        write_csv(columns, ({name: row.get(name) for name in columns} for row in rows), self.paths.progress_csv)
        for name in ("loss", "learning_rate", "data_wait_share", *record.found):
            if (value := record.row[name]) is not None:
                self.board.add_scalar(name, value, record.iteration)
        self.board.flush()

    def close(self) -> None:
        """Close the files."""
        self.board.close()
        logger = logging.getLogger("longflow")
        logger.removeHandler(self.handler)
        logger.setLevel(self.level)
        self.handler.close()
        self.log.close()


def read_progress(path: Path) -> list[EpochRecord]:
    """Read a progress.csv.

    :param path: of the file.
    :returns: a record for each epoch; none where there is no file.
    :raises DataError: it is not a table of epochs.
    """
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [_record(row) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, csv.Error) as error:
        raise DataError(
            f"{path} is not the table of epochs that longflow_train writes. Delete it: it is begun again, and the "
            "training is not lost."
        ) from error


def _record(row: dict[str, str]) -> EpochRecord:
    numbers = {name: None if text == "" else float(text) for name, text in row.items()}
    counted = {name: int(numbers.pop(name)) for name in ("epoch", "iteration")}
    known = {name: numbers.pop(name) for name in COLUMNS if name not in counted}
    return EpochRecord(**counted, **known, found=numbers)
