import numpy as np
import pydicom
import pytest

from longflow.dicom.files import read_export
from longflow.dicom.sources import source_of
from longflow.dicom.stacks import BY_NUMBER_ALONE, geometry_of, stacks_of
from longflow.dicom.volume import read_volume
from tests.conftest import outside_data
from tests.dicom.helpers import MR, phantom, uid, write_series


def stacks(folder):
    return stacks_of(read_export(folder, 1).frames)


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (0.8, 0.6, 0, 0, 0, -1)]
)
def test_slices_are_sorted_along_their_normal(tmp_path, orientation):
    write_series(tmp_path, orientation=orientation)
    (stack,) = stacks(tmp_path)
    geometry = geometry_of(stack.points[0])
    assert not stack.problem and stack.unit == "days" and geometry.size == (12, 10, 6)
    assert geometry.spacing == pytest.approx((0.5, 0.8, 3)) and geometry.origin == (-20, -30, 40)
    assert np.linalg.det(np.reshape(geometry.direction, (3, 3))) == pytest.approx(1)


def test_the_number_of_an_instance_is_not_trusted(tmp_path):
    write_series(tmp_path, change=lambda header, place: setattr(header, "InstanceNumber", (place * 5) % 7))
    (stack,) = stacks(tmp_path)
    assert [frame.depth for frame in stack.points[0]] == [40, 43, 46, 49, 52, 55]


def test_missing_slices(tmp_path):
    write_series(tmp_path, skip=(2, 3))
    assert "missing slices: 2, after the position 43.0 mm" in stacks(tmp_path)[0].problem


def test_doubled_slices(tmp_path):
    write_series(tmp_path, change=lambda header, _: setattr(header, "InstanceNumber", None))
    write_series(tmp_path, first_number=50, change=lambda header, _: setattr(header, "InstanceNumber", None), skip=(4,))
    assert "doubled slices: 5 at the position of another" in stacks(tmp_path)[0].problem


def test_unequal_distances(tmp_path):
    def change(header, place):
        header.ImagePositionPatient[2] = 40 + [0, 3, 6, 10.2, 13.2, 16.2][place]

    write_series(tmp_path, change=change)
    assert "unequal distances of slices: 3.00 to 4.20 mm" in stacks(tmp_path)[0].problem


def test_slices_that_jump_in_their_plane(tmp_path):
    def change(header, place):
        header.ImagePositionPatient[0] += 5 * (place == 3)

    write_series(tmp_path, change=change)
    assert "slices shifted in their plane" in stacks(tmp_path)[0].problem


def test_rounded_positions_are_no_problem(tmp_path):
    def change(header, place):
        header.ImagePositionPatient[2] = round(40 + 0.3333 * place, 2)

    write_series(tmp_path, change=change)
    (stack,) = stacks(tmp_path)
    assert not stack.problem and not stack.remarks


def test_a_tilted_gantry_is_said(tmp_path):
    write_series(tmp_path, tilt=0.8)
    (stack,) = stacks(tmp_path)
    assert not stack.problem and "gantry tilt of 14.9 degrees" in stack.remarks[0]


@pytest.mark.parametrize(
    "element", ["AcquisitionNumber", "TemporalPositionIdentifier", "ContentTime", "AcquisitionTime"]
)
def test_two_phases_interleaved_in_one_series(tmp_path, element):
    for phase in (0, 1):

        def change(header, place, phase=phase):
            header.InstanceNumber = 2 * place + phase
            setattr(header, element, f"0815{phase}0" if "Time" in element else phase + 1)

        write_series(tmp_path, phantom(seed=phase), first_number=phase * 100, change=change)
    found = stacks(tmp_path)
    element = "TemporalPositionIdentifier" if element.startswith("Temporal") else element
    assert [stack.told_apart for stack in found] == [element] * 2
    assert not any(stack.problem for stack in found) and {len(stack.points[0]) for stack in found} == {6}
    assert len({stack.id for stack in found}) == 2


def test_phases_of_other_coverage_in_one_series(tmp_path):
    write_series(tmp_path, AcquisitionNumber=1)
    write_series(tmp_path, phantom((9, 10, 12)), first_number=100, AcquisitionNumber=2, origin=(-20, -30, 34))
    assert sorted(len(stack.points[0]) for stack in stacks(tmp_path)) == [6, 9]


def test_one_phase_of_two_is_damaged(tmp_path):
    write_series(tmp_path, AcquisitionNumber=1)
    write_series(tmp_path, first_number=100, AcquisitionNumber=2, skip=(2,))
    problems = sorted(stack.problem for stack in stacks(tmp_path))
    assert problems[0] == "" and "missing slices: 1" in problems[1]


def write_times(folder, count, change, **values):
    for time in range(count):
        write_series(
            folder, phantom(seed=time), first_number=time * 100, change=lambda h, p, t=time: change(h, p, t), **values
        )


def test_a_cine_has_the_mean_trigger_times_of_its_slices(tmp_path):
    def change(header, place, time):
        header.TriggerTime, header.NominalInterval = 10 + 40 * time + place, 900

    write_times(tmp_path, 6, change, SOPClassUID=MR, Modality="MR")
    (stack,) = stacks(tmp_path)
    assert stack.unit == "ms" and stack.period == 900
    assert stack.times == pytest.approx([12.5 + 40 * time for time in range(6)])


def test_perfusion_has_seconds(tmp_path):
    def change(header, place, time):
        header.AcquisitionTime, header.AcquisitionNumber = f"0815{time * 2:02d}.{place:02d}", time

    write_times(tmp_path, 7, change)
    (stack,) = stacks(tmp_path)
    assert stack.unit == "s" and stack.period is None
    assert stack.times == pytest.approx([2 * time for time in range(7)])


def test_frames_without_trigger_times_have_their_frame_time(tmp_path):
    def change(header, place, time):
        header.TemporalPositionIdentifier, header.FrameTime = time + 1, 45

    write_times(tmp_path, 5, change, SOPClassUID=MR, Modality="MR")
    (stack,) = stacks(tmp_path)
    assert stack.unit == "ms" and stack.times == (0, 45, 90, 135, 180)


def test_numbers_alone_tell_times_apart_with_a_remark(tmp_path):
    write_times(tmp_path, 2, lambda header, place, time: setattr(header, "InstanceNumber", time * 10 + place))
    found = stacks(tmp_path)
    assert len(found) == 2 and all(BY_NUMBER_ALONE in stack.remarks for stack in found)


def test_echoes_directions_and_kinds_are_apart(tmp_path):
    write_series(tmp_path, series="1", EchoTime=10)
    write_series(tmp_path, series="1", first_number=20, EchoTime=20)
    write_series(tmp_path, series="1", first_number=40, EchoTime=10, orientation=(0, 1, 0, 0, 0, -1))
    write_series(tmp_path, series="1", first_number=60, EchoTime=10, ImageType=["DERIVED", "PRIMARY", "P"])
    found = stacks(tmp_path)
    assert len(found) == 4 and not any(stack.problem for stack in found)


def test_the_id_of_a_stack_does_not_depend_on_the_files(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", shuffle=False)
    assert stacks(tmp_path / "a")[0].id == stacks(tmp_path / "b")[0].id


def test_times_of_a_real_cine():
    import json

    folder = outside_data("sunnybrook")
    (stack,) = stacks(folder / "dicom" / "SCD0000301")
    truth = json.loads((folder / "nifti" / "SCD0000301.json").read_text())["trigger_time_ms_mean"]
    assert stack.unit == "ms" and stack.period == 923
    np.testing.assert_allclose(stack.times, truth, atol=1)


def write_cine_by_slices(folder, times=6, slices=4, skip=()):
    """Write a cine with a series for each slice, whose trigger times differ a little."""
    volumes = [phantom((slices, 10, 12), seed=time) for time in range(times)]
    for place in range(slices):
        for time in range(times):
            if (place, time) not in skip:
                values = {"TriggerTime": 40 * time + place, "SeriesDescription": f"cine SA {place}", "Modality": "MR"}
                others = [other for other in range(slices) if other != place]
                at = {"series": str(10 + place), "first_number": 100 * time, "SOPClassUID": MR, "skip": others}
                write_series(folder, volumes[time], **at, **values)
    return volumes


def test_a_cine_with_a_series_for_each_slice_is_joined(tmp_path):
    volumes = write_cine_by_slices(tmp_path)
    (stack,) = stacks(tmp_path)
    assert stack.unit == "ms" and stack.times == (1.5, 41.5, 81.5, 121.5, 161.5, 201.5) and not stack.problem
    assert "joined from 4 series, one for each position" in stack.remarks
    np.testing.assert_array_equal(read_volume(stack.points[3])[0], volumes[3])
    assert source_of(stack.points[0]) is None


@pytest.mark.parametrize("skip", [((2, 3),), tuple((1, time) for time in range(6))])
def test_slices_that_do_not_fit_are_not_joined(tmp_path, skip):
    """A slice has fewer times, or one is missing between others."""
    write_cine_by_slices(tmp_path, skip=skip)
    found = stacks(tmp_path)
    assert len(found) > 1 and not any("joined" in remark for stack in found for remark in stack.remarks)


def test_a_real_cine_with_a_series_for_each_slice_is_that_with_one(tmp_path):
    folder = outside_data("sunnybrook/dicom/SCD0000301")
    (whole,) = stacks(folder)
    for number, path in enumerate(sorted(one for one in folder.rglob("*") if one.is_file())):
        header = pydicom.dcmread(path)
        position = "".join(f"{value:.0f}" for value in header.ImagePositionPatient)
        header.SeriesInstanceUID = uid("slice", position)
        header.save_as(tmp_path / str(number))
    (stack,) = stacks(tmp_path)
    assert (stack.unit, stack.times, stack.period) == (whole.unit, whole.times, whole.period)
    for before, after in zip(whole.points, stack.points, strict=True):
        assert [frame.instance.sop_uid for frame in before] == [frame.instance.sop_uid for frame in after]
