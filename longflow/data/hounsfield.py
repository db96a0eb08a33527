"""Channels of CT, whose units are the same in every scan."""

import re

#: first words of channel names that mean Hounsfield units; "ct" is nnU-Net's
CT_NAMES = ("ct", "cbct", "nct", "ncct", "ctp", "cect")
#: words that may follow in such a name
CT_PHASES = (
    *("native", "non", "noncontrast", "unenhanced", "plain", "contrast", "enhanced"),
    *("arterial", "venous", "portal", "portovenous", "nephrographic", "delayed", "late", "phase"),
)


def is_ct(name: str) -> bool:
    """Tell whether the name of a channel means Hounsfield units.

    >>> is_ct("CT"), is_ct("CT_portal-venous"), is_ct("CT perfusion Tmax")
    (True, True, False)
    """
    first, *words = re.split(r"[\s_-]+", name.casefold().strip())
    return first in CT_NAMES and all(word in CT_PHASES for word in words)
