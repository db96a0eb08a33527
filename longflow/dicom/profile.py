"""De-identify a DICOM data set: DICOM PS3.15, annex E, basic profile, with modified dates and clean descriptors.

The rules are stricter than the table of the standard where that is simpler: of text, only elements that are known to
describe the image are kept, so that an element that the table does not know is removed, too.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from longflow.dicom.moments import parse_date

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

METHOD = "longflow: basic profile, modified dates, clean descriptors"
#: codes of the profile and its options (PS3.16, CID 7050)
CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)

#: elements that stay, empty: their module needs them
EMPTIED = (
    *("AccessionNumber", "StudyID", "ReferringPhysicianName", "PatientBirthDate", "PatientSex", "ContentCreatorName"),
    *("ROIInterpreter", "PositionReferenceIndicator"),
)
#: descriptions of which only :data:`SAFE_WORDS` stay
CLEANED = ("SeriesDescription", "StudyDescription", "ProtocolName", "SegmentLabel", "ROIName", "StructureSetLabel")
#: text that describes the image
KEPT_TEXT = (
    *("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ConvolutionKernel", "SequenceName"),
    *("PulseSequenceName", "ImagedNucleus", "RescaleType", "StackID", "DimensionDescriptionLabel"),
    *("CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"),
    *("SegmentAlgorithmName",),
)
#: bytes that are pixels, or tables of them
KEPT_BYTES = re.compile(r"(Float|DoubleFloat)?PixelData|ExtendedOffsetTable\w*|\w*LookupTableData|LUTData|ContourData")
#: keywords of elements about persons, institutions and requests, whatever their type
SENSITIVE = re.compile(
    r"^(Patient(?!Position|Orientation|GantryRelationship)|ReferencedPatient|ReferencedStudy|MAC|Order|Visit|Issuer)"
    r"|Physician|Operator|Person|Institution|Request|Performed|Scheduled|Admi(tt|ss)|Custodial|Author|Verif|Participant"
    r"|Military|Ethnic|Occupation|Smoking|Pregnancy|Religious|StationName|SerialNumber|Address|Telephone|Insurance"
    r"|MedicalRecord|MedicalAlert|Allerg|Icon|Signature|Encrypted|OriginalAttributes|ModifiedAttributes|Consent|Contact"
    r"|ContributingEquipment|ClinicalTrial|Device(ID|UDI)|UDI"
)
TEXT = ("AE", "AS", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT")
BYTES = ("OB", "OD", "OF", "OL", "OV", "OW", "OB or OW")
#: UIDs of the standard itself: classes, transfer syntaxes, coding schemes
STANDARD = "1.2.840.10008."
#: elements that must have a value in some modules, and what stands there instead
DUMMIES = {"ContrastBolusAgent": "CONTRAST", "DeviceSerialNumber": "0"}
CURVES_AND_OVERLAYS = (0x5000, 0x6000)

#: words of descriptions that say what an image is: phases, sequences, directions, parts of the body
SAFE_WORDS = frozenset(
    (
        *("native", "non", "contrast", "unenhanced", "plain", "arterial", "art", "venous", "ven", "portal", "pv"),
        *("delayed", "late", "post", "pre", "without", "with", "gd", "ce", "phase", "early", "equilibrium"),
        *("t1", "t1w", "t2", "t2w", "flair", "dwi", "adc", "swi", "pd", "stir", "dixon", "vibe", "mprage", "spgr"),
        *("gre", "tse", "fse", "bssfp", "trufisp", "cine", "perfusion", "tof", "fs", "2d", "3d", "ct", "mr", "pet"),
        *("sax", "lax", "short", "long", "axis", "axial", "ax", "coronal", "cor", "sagittal", "sag", "thin", "thick"),
        *("soft", "bone", "lung", "scout", "localizer", "localiser", "topogram", "mpr", "mip", "left", "right"),
        *("abdomen", "liver", "kidney", "spleen", "pancreas", "heart", "brain", "head", "neck", "chest", "thorax"),
        *("pelvis", "prostate", "bladder", "aorta", "spine", "hippocampus", "anterior", "posterior", "ventricle"),
        *("tumour", "tumor", "lesion", "cavity", "myocardium", "muscle"),
    )
)


@dataclass(frozen=True)
class Identity:
    """What a patient becomes.

    :param subject: the new name and number.
    :param shift: days that are added to each date.
    :param secret: from which new UIDs are made, so that they cannot be guessed from old ones.
    """

    subject: str
    shift: int
    secret: str

    def uid(self, uid: str) -> str:
        """Return the new UID for an old one, always the same; UIDs of the standard stay."""
        if not uid or uid.startswith(STANDARD):
            return uid
        digest = hashlib.sha256(f"{self.secret} {uid}".encode()).digest()
        return f"2.25.{int.from_bytes(digest[:15], 'big')}"

    def date(self, text: str) -> str:
        """Shift a date (DA), or a date with time (DT) whose time stays; empty where it is none."""
        day = parse_date(text)
        if day is None:
            return ""
        rest = text.strip()[8:] if re.match(r"\d{8}", text.strip()) else ""
        try:
            return f"{day + timedelta(days=self.shift):%Y%m%d}{rest}"
        except OverflowError:
            return ""


def deidentify(dataset: "Dataset", identity: Identity) -> Counter[tuple[str, str]]:
    """De-identify a data set with its file meta information.

    :param dataset: of one file; it is changed.
    :param identity: what its patient becomes.
    :returns: how often (name of an element, "removed", "emptied", "replaced", "shifted" or "cleaned") occurred.
    """
    changes: Counter[tuple[str, str]] = Counter()
    _clean(dataset, identity, changes)
    dataset.PatientName = dataset.PatientID = identity.subject
    dataset.PatientIdentityRemoved = "YES"
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"
    dataset.DeidentificationMethod = METHOD
    dataset.DeidentificationMethodCodeSequence = [_code(*code) for code in CODES]
    _clean_meta(dataset)
    return changes


def _code(value: str, meaning: str) -> "Dataset":
    from pydicom import Dataset

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _clean_meta(dataset: "Dataset") -> None:
    """Write the file meta information and the preamble from scratch."""
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta, dataset.preamble = meta, b"\0" * 128


def _clean(dataset: "Dataset", identity: Identity, changes: Counter[tuple[str, str]]) -> None:
    for tag in list(dataset.keys()):
        if tag.is_private:  # never read: their types are not known
            del dataset[tag]
            changes["private elements", "removed"] += 1
            continue
        element = dataset[tag]
        name = element.keyword or "unknown elements"
        action = _action(element)
        if action == "removed":
            del dataset[tag]
        elif action == "emptied":
            element.value = None if element.VR == "PN" else ""
        elif action == "recursed":
            for item in element.value:
                _clean(item, identity, changes)
            continue
        elif action:
            before = element.value
            element.value = _changed(element, action, identity)
            if element.value == before:
                continue
        if action:
            changes[name, action] += 1
    for name, number in (("SegmentLabel", "SegmentNumber"), ("ROIName", "ROINumber")):
        if name in dataset and not dataset.get(name):
            setattr(dataset, name, f"structure {dataset.get(number)}")


def _action(element: "DataElement") -> str:
    """Return what happens to an element; empty: it stays."""
    name, kind, group = element.keyword, element.VR, element.tag.group
    if not name or group & 0xFF00 in CURVES_AND_OVERLAYS:
        return "removed"
    if name in EMPTIED:
        return "emptied"
    if name in ("PatientID", "PatientName", *DUMMIES):
        return "replaced"
    if SENSITIVE.search(name):
        return "removed"
    if name in CLEANED:
        return "cleaned"
    if kind == "SQ":
        return "recursed"
    if kind == "UI":
        return "replaced"
    if kind in ("DA", "DT"):
        return "shifted"
    unknown_text = kind in TEXT and name not in KEPT_TEXT
    return "removed" if unknown_text or (kind in BYTES and not KEPT_BYTES.fullmatch(name)) else ""


def _changed(element: "DataElement", action: str, identity: Identity):
    """Return the new value of an element, or a list of values."""
    from pydicom.multival import MultiValue

    if isinstance(element.value, MultiValue | list):
        return [_changed_value(element, str(value), action, identity) for value in element.value]
    return _changed_value(element, str(element.value or ""), action, identity)


def _changed_value(element: "DataElement", text: str, action: str, identity: Identity) -> str:
    if action == "shifted":
        return identity.date(text)
    if action == "cleaned":
        return clean_words(text)
    if element.VR == "UI":
        return identity.uid(text)
    if element.keyword in DUMMIES:
        return DUMMIES[element.keyword] if text else ""
    return identity.subject


def clean_words(text: str) -> str:
    """Keep the words of a description that say what the image is.

    >>> clean_words("Miller, Anna: T1 post GD 3.0 mm")
    't1 post gd'
    """
    return " ".join(word for word in re.findall(r"[a-z0-9]+", text.casefold()) if word in SAFE_WORDS)
