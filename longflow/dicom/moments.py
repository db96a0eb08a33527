"""Dates and times of DICOM headers."""

import re
from datetime import date

SECONDS_OF_DAY = 86400

DATE = re.compile(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})")
TIME = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2}(?:\.\d+)?)?")


def parse_date(text: object) -> date | None:
    """Parse a date (VR DA); None where it is none, as 20120000.

    >>> parse_date("20120229"), parse_date("20120000")
    (datetime.date(2012, 2, 29), None)
    """
    match = DATE.match(str(text or "").strip())
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None


def parse_time_of_day(text: object) -> float | None:
    """Parse a time of day (VR TM) as seconds since midnight; None where it is none.

    >>> parse_time_of_day("083015.25"), parse_time_of_day("")
    (30615.25, None)
    """
    match = TIME.match(str(text or "").strip())
    if not match:
        return None
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds if hours < 24 and minutes < 60 and seconds < 61 else None


def moment(day: object, time: object) -> float | None:
    """Return a date (DA) with a time (TM) as seconds that can be subtracted; without a date, since midnight."""
    seconds = parse_time_of_day(time)
    known = parse_date(day)
    return None if seconds is None else seconds + (known.toordinal() * SECONDS_OF_DAY if known else 0)


def moment_of_datetime(text: object) -> float | None:
    """Return a date with time (VR DT) as :func:`moment`; its offset from UTC is ignored, as within one scanner."""
    found = str(text or "").strip()
    return moment(found[:8], re.split(r"[+-]", found[8:])[0]) if len(found) >= 10 else None
