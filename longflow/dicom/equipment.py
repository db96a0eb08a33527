"""What every DICOM object that longflow writes says about itself: who made it, when, and from what."""

from collections.abc import Iterable
from copy import deepcopy
from datetime import datetime
from uuid import NAMESPACE_OID, uuid4, uuid5

from highdicom import AlgorithmIdentificationSequence, ContributingEquipment
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from longflow.version import __version__

MANUFACTURER = "longflow"
#: type 1 in segmentations; software has none
SERIAL_NUMBER = "none"
PURPOSE = "research only"


def new_uid() -> UID:
    """Return a UID that no other object has: the decimal form of a random UUID (PS3.5 B.2)."""
    return UID(f"2.25.{uuid4().int}")


def repeatable_uid(*parts: str) -> UID:
    """Return a UID that is the same whenever the parts are, as for one structure in all scans of a patient."""
    return UID(f"2.25.{uuid5(NAMESPACE_OID, chr(0).join(parts)).int}")


def contributing_equipment() -> ContributingEquipment:
    """Return the item that names longflow and its version."""
    return ContributingEquipment(
        MANUFACTURER,
        codes.DCM.ProcessingEquipment,
        manufacturer_model_name=MANUFACTURER,
        software_versions=__version__,
        contribution_description=f"Made by a trained model, {PURPOSE}",
    )


def algorithm(method: str) -> AlgorithmIdentificationSequence:
    """Return the item that names the method of a model. :param method: as in sidecars."""
    family = codes.DCM.ArtificialIntelligence
    return AlgorithmIdentificationSequence(f"{MANUFACTURER} {method}"[:64], family, __version__, MANUFACTURER)


def stamp(made: Dataset, series_number: int, description: str) -> None:
    """Write into an object who made it, its series and the present moment.

    :param series_number: in its study.
    :param description: of the series; at most 64 letters are kept.
    """
    now = datetime.now()
    made.Manufacturer = made.ManufacturerModelName = MANUFACTURER
    made.SoftwareVersions, made.DeviceSerialNumber = __version__, SERIAL_NUMBER
    made.SeriesNumber, made.SeriesDescription = series_number, description[:64]
    made.SeriesDate = made.ContentDate = made.InstanceCreationDate = now.strftime("%Y%m%d")
    made.SeriesTime = made.ContentTime = made.InstanceCreationTime = now.strftime("%H%M%S")
    made.ContributingEquipmentSequence = [contributing_equipment()]


def copy_attributes(source: Dataset, made: Dataset, names: Iterable[str]) -> None:
    """Copy the attributes that a header has. :param names: their keywords."""
    for name in names:
        if name in source:
            made[name] = deepcopy(source[name])  # else a change of one changes the other
