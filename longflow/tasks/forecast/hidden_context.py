"""Hide context scans from a trained model, to measure what a forecast loses without them (CRONOS B.2)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from longflow.errors import ConfigurationError

End = Literal["first", "last"]
Element = TypeVar("Element")


@dataclass(frozen=True)
class HiddenContext:
    """A rule that hides context scans from a model (CRONOS figure 7, "zero-shot masking").

    Hidden scans count as never acquired: the rest is the context, its last scan is the last context image, and the
    horizon counts from it. The LCI of such a forecast is therefore the LCI without these scans. The figure's reference,
    the same targets with nothing hidden, is a prediction of its own.

    >>> str(HiddenContext.of("first:2"))
    'first:2'
    >>> HiddenContext.of("last:2").rest(["a", "b", "c", "d"])
    ('a', 'b')

    :param end: "first" hides the earliest scans, "last" the scans closest to the target.
    :param count: number of scans, 1 or more.
    """

    end: End
    count: int

    @classmethod
    def of(cls, text: str) -> "HiddenContext":
        """Parse ``first:K`` or ``last:K``. :raises ConfigurationError: the text is something else."""
        match = re.fullmatch(rf"({'|'.join(get_args(End))}):0*([1-9]\d*)", text)
        if not match:
            raise ConfigurationError(
                f"--hide_context is '{text}', expected first:K or last:K with the number K of context scans to hide, "
                "as first:2."
            )
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.end}:{self.count}"

    def rest(self, context: Sequence[Element]) -> tuple[Element, ...]:
        """Return the context scans that are not hidden, at least one.

        A forecast needs a scan, and targets must not drop out where many scans are hidden: then results could not be
        compared. Of a context that would be hidden as a whole, the scan that would be hidden last is kept: the latest
        for "first", the earliest for "last".

        :param context: in order of time.
        :returns: the rest, in order of time.
        """
        count = min(self.count, len(context) - 1)
        return tuple(context[count:] if self.end == "first" else context[: len(context) - count])

    def is_too_many(self, context: Sequence[Element]) -> bool:
        """Return whether a context has too few scans for this number to be hidden."""
        return len(context) <= self.count
