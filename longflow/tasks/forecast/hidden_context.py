"""Hiding context scans from a trained model: what a forecast loses with the first or the last of them (CRONOS B.2)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from longflow.errors import ConfigurationError

End = Literal["first", "last"]
Element = TypeVar("Element")


@dataclass(frozen=True)
class HiddenContext:
    """Context scans that are not given to a model (CRONOS figure 7, "zero-shot masking").

    They are as good as never acquired: what is forecast from is the rest, the last context image is the last of the
    rest, and the horizon counts from it. So a forecast stands beside the LCI that somebody without these scans would
    have. The figure's reference, the same targets with nothing hidden, is a prediction of its own.

    >>> str(HiddenContext.of("first:2"))
    'first:2'
    >>> HiddenContext.of("last:2").rest(["a", "b", "c", "d"])
    ('a', 'b')

    :param end: "first" hides the earliest scans, "last" those nearest to the target. :param count: how many, 1 or more.
    """

    end: End
    count: int

    @classmethod
    def of(cls, text: str) -> "HiddenContext":
        """From ``first:K`` or ``last:K``. :raises ConfigurationError: it is something else."""
        found = re.fullmatch(rf"({'|'.join(get_args(End))}):0*([1-9]\d*)", text)
        if not found:
            raise ConfigurationError(
                f"--hide_context is '{text}', expected first:K or last:K with the number K of context scans to hide, "
                "as first:2."
            )
        return cls(found[1], int(found[2]))

    def __str__(self) -> str:
        return f"{self.end}:{self.count}"

    def rest(self, context: Sequence[Element]) -> tuple[Element, ...]:
        """What is left of a context, in order of time; one scan at least.

        A forecast needs a scan, and a target that is left out where many are hidden would make those that remain
        another set: of a context that would be hidden as a whole the scan stays that would be hidden last, the latest
        one for "first" and the earliest one for "last".
        """
        count = min(self.count, len(context) - 1)
        return tuple(context[count:] if self.end == "first" else context[: len(context) - count])

    def is_too_many(self, context: Sequence[Element]) -> bool:
        """Whether a context has too few scans for so many to be hidden."""
        return len(context) <= self.count
