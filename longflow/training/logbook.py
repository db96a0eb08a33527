"""What is written down during training: a CSV, TensorBoard, a log file."""

import csv
import logging
from dataclasses import dataclass, field, fields
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from longflow.files import write_csv
from longflow.paths import FoldPaths


@dataclass(frozen=True)
class EpochRecord:
    """One line of progress.csv.

    :param seconds: trained so far, over all sittings. :param epoch_seconds: of this epoch, validation included.
    :param data_wait_share: share of the training time of this epoch spent waiting for data.
    :param found: further columns: terms of the loss, and what the validation found; None in epochs without one.
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
        """As it stands in progress.csv."""
        return {name: getattr(self, name) for name in COLUMNS} | self.found


#: the columns of every progress.csv
COLUMNS = [column.name for column in fields(EpochRecord) if column.name != "found"]


class Logbook:
    """The records of a fold. Continuing a run drops the records after the iteration that it continues from.

    :param first_iteration: of this sitting; 0 starts anew.
    """

    def __init__(self, paths: FoldPaths, first_iteration: int):
        self.paths = paths
        self.records = [
            record
            for record in read_progress(paths.progress_csv)
            if first_iteration and record.iteration <= first_iteration
        ]
        self.board = SummaryWriter(str(paths.tensorboard), purge_step=first_iteration)
        self.handler = logging.FileHandler(paths.log, mode="a" if first_iteration else "w", encoding="utf-8")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("longflow")
        self.level = logger.level
        # the file hears of every epoch; what the screen hears is its own handler's affair
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self.handler)

    def add(self, record: EpochRecord) -> None:
        """Write an epoch down."""
        self.records.append(record)
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


def read_progress(path: Path) -> list[EpochRecord]:
    """The records of a progress.csv; none where there is no file."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return [_record(row) for row in csv.DictReader(file)]


def _record(row: dict[str, str]) -> EpochRecord:
    numbers = {name: None if text == "" else float(text) for name, text in row.items()}
    counted = {name: int(numbers.pop(name)) for name in ("epoch", "iteration")}
    known = {name: numbers.pop(name) for name in COLUMNS if name not in counted}
    return EpochRecord(**counted, **known, found=numbers)
