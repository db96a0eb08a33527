"""The columns of progress.csv, and how those of a validation are drawn. Light: figures are drawn without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

#: columns that every training writes; the first ones are drawn
PROGRESS_COLUMNS = ("epoch", "loss", "epoch_seconds", "data_wait_share")
OTHER_COLUMNS = ("iteration", "seconds", "learning_rate")


@dataclass(frozen=True)
class ProgressColumns:
    """How the progress figure of a training shows the columns of a validation.

    :param measure: name of the first column on the axis; empty: as the column is called.
    :param higher_is_better: of the first column.
    :param baselines: columns that do not change, with their names; each is a horizontal line.
    :param hidden: prefixes of columns that are not drawn.
    """

    measure: str = ""
    higher_is_better: bool = False
    baselines: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()


#: every column is drawn under its own name, and lower values are better
AS_NAMED = ProgressColumns()
