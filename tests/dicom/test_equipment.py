from datetime import datetime

from pydicom import Dataset
from pydicom.uid import UID

from longflow.dicom.equipment import (
    algorithm,
    contributing_equipment,
    copy_attributes,
    new_uid,
    repeatable_uid,
    stamp,
)
from longflow.version import __version__


def test_uids_are_valid_and_new():
    uids = [new_uid() for _ in range(100)]
    assert all(UID(uid).is_valid for uid in uids)
    assert len(set(uids)) == 100


def test_a_repeatable_uid_depends_on_every_part_and_on_where_it_ends():
    assert repeatable_uid("ab", "c") == repeatable_uid("ab", "c")
    assert len({repeatable_uid("ab", "c"), repeatable_uid("a", "bc"), repeatable_uid("ab", "d")}) == 3
    assert repeatable_uid("ab", "c").is_valid


def test_equipment_and_algorithm_name_longflow_and_its_version():
    item = contributing_equipment()
    assert (item.Manufacturer, item.SoftwareVersions) == ("longflow", __version__)
    assert item.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"
    (described,) = algorithm("x" * 100)
    assert described.AlgorithmVersion == __version__
    assert len(described.AlgorithmName) == 64


def test_a_stamp_has_the_present_moment_and_a_description_that_fits():
    made = Dataset()
    stamp(made, 9001, "d" * 100)
    assert made.ContentDate in (datetime.now().strftime("%Y%m%d"), made.SeriesDate)
    assert len(made.SeriesDescription) == 64
    assert made.ContributingEquipmentSequence[0].Manufacturer == made.Manufacturer == "longflow"


def test_only_attributes_that_exist_are_copied():
    source, made = Dataset(), Dataset()
    source.PatientID, source.Rows = "P1", 5
    copy_attributes(source, made, ("PatientID", "PatientSex"))
    assert made.PatientID == "P1"
    assert len(made) == 1
    made.PatientID = "P2"
    assert source.PatientID == "P1"
