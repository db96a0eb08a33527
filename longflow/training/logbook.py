"""What is written down during training: a CSV, TensorBoard, a log file."""

import csv
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from longflow.files import write_csv
from longflow.paths import FoldPaths


@dataclass(frozen=True)
class EpochRecord:
    """One line of progress.csv. The NRMSE fields are None in epochs without a validation.

    :param seconds: trained so far, over all sittings. :param epoch_seconds: of this epoch, validation included.
    :param data_wait_share: share of the training time of this epoch spent waiting for data.
    """

    epoch: int
    iteration: int
    seconds: float
    loss: float
    learning_rate: float
    nrmse: float | None
    lci_nrmse: float | None
    context_mean_nrmse: float | None
    epoch_seconds: float
    data_wait_share: float


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
        write_csv([field.name for field in fields(EpochRecord)], map(asdict, self.records), self.paths.progress_csv)
        for name in ("loss", "learning_rate", "nrmse", "lci_nrmse", "context_mean_nrmse", "data_wait_share"):
            if (value := getattr(record, name)) is not None:
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
        return [
            EpochRecord(
                **{
                    field.name: None
                    if row[field.name] == ""
                    else (int if field.type is int else float)(row[field.name])
                    for field in fields(EpochRecord)
                }
            )
            for row in csv.DictReader(file)
        ]
