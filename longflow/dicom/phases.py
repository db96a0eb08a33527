"""Guess the contrast phase of a series: from its description, the contrast agent, and the time since its injection."""

import re
from typing import NamedTuple

NATIVE, ARTERIAL, VENOUS, DELAYED, CONTRAST = "native", "arterial", "venous", "delayed", "contrast"

#: words of descriptions (English, German, French, Italian, Spanish), in the order in which they are looked for
WORDS = (
    (NATIVE, r"nativ\w*|non[\s_-]?contrast|unenhanced|plain|without|w[/.]?o|sans|senza|sin|ohne|pre|nc|nect|ncct"),
    (ARTERIAL, r"art|arterial\w*|arteri\w*|aort\w*|cta|angio\w*|hap"),
    (VENOUS, r"ven|venous|portal\w*|porto\w*|ven[oö]s\w*|veineu\w*|pv|pvp|hepatobil\w*"),
    (DELAYED, r"delay\w*|late|sp[aä]t\w*|equilibrium|tard\w*|excret\w*|[35-9][\s_-]?min|1[0-5][\s_-]?min"),
    (CONTRAST, r"post|gd|km|ce|cect|contrast|\+c|c\+"),
)
#: s after the start of the injection, until which a phase lasts (abdominal CT)
UNTIL = ((0.0, NATIVE), (45.0, ARTERIAL), (120.0, VENOUS), (3600.0, DELAYED))


class Guess(NamedTuple):
    """A phase, and where it comes from.

    :param phase: one of the names of this module; empty: unknown.
    :param reason: human-readable.
    :param doubtful: the sources contradict each other.
    """

    phase: str
    reason: str
    doubtful: bool = False


def guess_phase(description: str, contrast: str | None, seconds: float | None) -> Guess:
    """Guess the contrast phase of a series.

    :param description: of the series.
    :param contrast: the contrast agent in the header; empty: none was given; None: the header does not say.
    :param seconds: from the start of the injection to the acquisition; None: unknown.
    :returns: the guess. A description counts more than the time, and the time more than the agent alone.

    >>> guess_phase("Abdomen art. 1.0 I30f", "Iomeron 400", None).phase
    'arterial'
    """
    word, by_word = phase_of_words(description)
    by_time = next((phase for until, phase in UNTIL if seconds is not None and seconds < until), "")
    given = bool(contrast) and contrast.casefold() not in ("no", "none", "n", "nein", "false", "0")
    if by_word == NATIVE and given and (by_time or CONTRAST) != NATIVE:
        return Guess(NATIVE, f"'{word}' in the description, but the header names a contrast agent ({contrast})", True)
    if by_word not in ("", NATIVE) and contrast is not None and not given:
        return Guess(by_word, f"'{word}' in the description, but the header has no contrast agent", True)
    if by_word and by_time and by_word not in (by_time, CONTRAST):
        said = f"'{word}' in the description, but {seconds:.0f} s after the start of the contrast agent ({by_time})"
        return Guess(by_word, said, True)
    if by_word and by_word != CONTRAST:
        return Guess(by_word, f"'{word}' in the description")
    if by_time and (given or contrast is None):
        return Guess(by_time, f"{seconds:.0f} s after the start of the contrast agent")
    if by_word or given:
        return Guess(CONTRAST, f"'{word}' in the description" if by_word else f"a contrast agent ({contrast})")
    return Guess("", "the header does not say")


def phase_of_words(description: str) -> tuple[str, str]:
    """Find the first word of a description that names a phase.

    :param description: of the series.
    :returns: the word as it is written, and the phase; both empty where there is none.

    >>> phase_of_words("Liver native"), phase_of_words("MPR sagittal")
    (('native', 'native'), ('', ''))
    """
    for phase, words in WORDS:
        if match := re.search(rf"(?<![a-z])(?:{words})(?![a-z])", description.casefold()):
            start, end = match.span()
            return description[start:end], phase
    return "", ""
