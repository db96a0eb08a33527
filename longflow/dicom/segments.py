"""Name, code and colour of each structure, for DICOM: from dataset.json, else from the standard's own lists."""

import colorsys
import re
from typing import Annotated

from highdicom.color import CIELabColor
from pydantic import BaseModel, ConfigDict, Field
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from longflow.data.dataset import DatasetDescription
from longflow.data.labels import structures
from longflow.errors import ConfigurationError, first_few
from longflow.schema import validated

#: key of dataset.json with what DICOM says about the structures
SEGMENTS = "segments"

ANATOMY = codes.SCT.AnatomicalStructure
ABNORMAL = codes.SCT.MorphologicallyAbnormalStructure
#: type of a structure whose name no list of the standard has
UNKNOWN = Code("123037004", "SCT", "Body structure")
#: lists of the standard in which a structure's name is looked for, and the category that they belong to
LISTS = (
    *((name, ANATOMY) for name in ("CID7152", "CID7153", "CID7154", "CID7155", "CID7156", "CID7160", "CID7192")),
    ("CID7166", codes.SCT.Tissue),
    ("CID7159", ABNORMAL),
)

Coded = tuple[str, str, str]
Channel = Annotated[int, Field(ge=0, le=255)]


class Segment(BaseModel):
    """An entry of :data:`SEGMENTS`.

    :param type: value, scheme and meaning of the code, as ``["10200004", "SCT", "Liver"]``.
    :param category: the same of its category (CID 7150).
    :param colour: red, green, blue, from 0 to 255.
    """

    model_config = ConfigDict(extra="forbid")

    type: Coded | None = None
    category: Coded | None = None
    colour: tuple[Channel, Channel, Channel] | None = None


class _Segments(BaseModel):
    segments: dict[str, Segment] = {}


class Structure(BaseModel):
    """What DICOM says about a structure.

    :param name: as in dataset.json.
    :param values: of the label map.
    :param type: the code of the structure.
    :param category: the code of its category.
    :param colour: red, green, blue, from 0 to 255.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    values: tuple[int, ...]
    type: Code
    category: Code
    colour: tuple[int, int, int]

    @property
    def cielab(self) -> CIELabColor:
        """Return the colour as DICOM has it."""
        return CIELabColor.from_rgb(*self.colour)


def coded_structures(description: DatasetDescription) -> list[Structure]:
    """List the structures of a dataset as DICOM describes them.

    A code that dataset.json gives is taken as it is. Otherwise the name is looked for among the meanings of the
    standard's lists (PS3.16), and a name that is not found is a body structure: its label still holds the name.

    :param description: its ``labels``, and its further key ``segments``.
    :returns: in the order of the labels.
    :raises ConfigurationError: ``segments`` has another form, or names a structure that ``labels`` does not.
    """
    given = validated(_Segments, {SEGMENTS: (description.model_extra or {}).get(SEGMENTS, {})}, "dataset.json").segments
    known = structures(description.labels)
    if strange := sorted(set(given) - set(known)):
        raise ConfigurationError(
            f"'{SEGMENTS}' in dataset.json names {first_few(strange)}, which 'labels' does not. Expected some of: "
            f"{', '.join(known)}."
        )
    return [
        _structure(name, values, given.get(name, Segment()), number, len(known))
        for number, (name, values) in enumerate(known.items())
    ]


def _structure(name: str, values: tuple[int, ...], given: Segment, number: int, count: int) -> Structure:
    found, category = _by_name(name)
    return Structure(
        name=name,
        values=values,
        type=Code(*given.type) if given.type else found,
        category=Code(*given.category) if given.category else category,
        colour=given.colour or _colour(number, count),
    )


def _by_name(name: str) -> tuple[Code, Code]:
    """Find a structure by the meaning of a code; capital letters, blanks and underscores do not count."""
    for list_name, category in LISTS:
        concepts = getattr(codes, list_name.lower())
        for keyword in concepts.dir():
            code = getattr(concepts, keyword)
            if code.scheme_designator == "SCT" and _plain(name) in (_plain(code.meaning), _plain(keyword)):
                return code, category
    return UNKNOWN, ANATOMY


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _colour(number: int, count: int) -> tuple[int, int, int]:
    """Return one of several colours that differ as much as possible in hue, red first."""
    return tuple(round(255 * value) for value in colorsys.hsv_to_rgb(number / count, 0.75, 0.9))
