"""What the demos share: the configuration that they train, and what they end with."""

from dataclasses import dataclass

#: what the demos train
CONFIGURATION = "3d_fullres"


@dataclass(frozen=True)
class Results:
    """What a demo ends with: a table, and lines below it."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    lines: list[str]
