import pytest

from longflow.data.dataset import DatasetDescription
from longflow.dicom.segments import coded_structures
from longflow.errors import ConfigurationError


def description(labels, **further):
    return DatasetDescription(
        channel_names={"0": "CT"},
        file_ending=".nii.gz",
        time_unit="days",
        labels={"background": 0, **labels},
        **further,
    )


@pytest.mark.parametrize(
    ("name", "value", "category"),
    [
        ("liver", "10200004", "Anatomical Structure"),
        ("Left_Ventricle", "87878005", "Anatomical Structure"),
        ("spleen", "78961009", "Anatomical Structure"),
        ("edema", "79654002", "Morphologically Abnormal Structure"),
        ("label_1", "123037004", "Anatomical Structure"),
    ],
)
def test_a_name_that_the_standard_knows_has_its_code(name, value, category):
    (structure,) = coded_structures(description({name: 1}))
    assert (structure.name, structure.type.value, structure.type.scheme_designator) == (name, value, "SCT")
    assert structure.category.meaning == category


def test_what_dataset_json_says_is_taken_as_it_is():
    given = {
        "type": ["1", "99CLINIC", "Thing"],
        "category": ["85756007", "SCT", "Tissue"],
        "colour": [1, 2, 250],
    }
    liver, thing = coded_structures(description({"liver": 1, "thing": [1, 2]}, segments={"thing": given}))
    assert thing.type.scheme_designator == "99CLINIC"
    assert thing.category.value == "85756007"
    assert thing.colour == (1, 2, 250)
    assert thing.values == (1, 2)
    assert thing.cielab.to_rgb() == pytest.approx((1, 2, 250), abs=2)
    assert liver.colour != thing.colour


def test_colours_of_many_structures_differ():
    many = coded_structures(description({f"label_{number}": number for number in range(1, 31)}))
    assert len({one.colour for one in many}) == 30


@pytest.mark.parametrize(
    ("segments", "says"),
    [
        ({"spleen": {}}, "names spleen, which 'labels' does not"),
        ({"liver": {"colour": [0, 0, 256]}}, "colour"),
        ({"liver": {"code": ["1", "SCT", "x"]}}, "code"),
        ({"liver": {"type": ["1", "SCT"]}}, "type"),
    ],
)
def test_wrong_entries_are_refused(segments, says):
    with pytest.raises(ConfigurationError, match=says):
        coded_structures(description({"liver": 1}, segments=segments))
