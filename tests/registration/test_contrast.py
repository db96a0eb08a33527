import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.body import body_mask
from longflow.demo.abdomen import LABELS, abdomen_scan, draw_patient, voxel_spacing
from longflow.errors import DataError
from longflow.registration import contrast as registration_contrast
from longflow.registration.contrast import body_alone, deformation, locally_normalised
from longflow.registration.deformable import has_ants, transform_of_field, warped
from tests.registration.helpers import as_image, blobs

SHAPE = (16, 64, 80)
BODY = body_mask(abdomen_scan(draw_patient(2), "native", SHAPE)[0], is_ct=True)

BACKENDS = pytest.mark.parametrize(
    ("ants", "name"),
    [
        (False, "SimpleITK diffeomorphic demons"),
        pytest.param(True, "ANTs SyNOnly", marks=pytest.mark.skipif(not has_ants(), reason="antspyx is not installed")),
    ],
)


def phantom(phase):
    """The scan of a patient, in perfect register with the other phase, and its label."""
    volumes = []
    for array in abdomen_scan(draw_patient(2), phase, SHAPE, breathing=0):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(voxel_spacing(SHAPE)[::-1])
        volumes.append(image)
    return volumes


def wave(grid, height):
    """A smooth displacement along y, mm, that fades towards the borders."""
    z, y, x = np.meshgrid(*(np.sin(np.pi * np.arange(size) / (size - 1)) for size in SHAPE), indexing="ij")
    array = np.zeros((*SHAPE, 3))
    array[..., 1] = height * z * y * x
    field = sitk.GetImageFromArray(array, isVector=True)
    field.CopyInformation(grid)
    return field


def aorta_after(field):
    """Its volume in the arterial scan once that is deformed, as a share of that in the native one."""
    native, arterial = phantom("native")[1], phantom("arterial")[1]
    moved = sitk.Resample(arterial, native, transform_of_field(field), sitk.sitkNearestNeighbor)
    volumes = [(sitk.GetArrayViewFromImage(label) == LABELS["aorta"]).sum() for label in (moved, native)]
    return volumes[0] / volumes[1]


@BACKENDS
def test_a_bright_aorta_is_not_shrunk(ants, name, monkeypatch):
    monkeypatch.setattr(registration_contrast, "has_ants", lambda: ants)
    native, arterial = (body_alone(phantom(phase)[0], is_ct=True) for phase in ("native", "arterial"))
    field, found_by = deformation(native, arterial, is_ct=True)
    assert found_by == name
    assert aorta_after(field) == pytest.approx(1, abs=0.05)
    # intensities alone: what this is there to prevent
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(30)
    demons.SetStandardDeviations(1.5)
    assert aorta_after(sitk.Cast(demons.Execute(native, arterial), sitk.sitkVectorFloat64)) < 0.9


@BACKENDS
def test_a_known_displacement_is_found(ants, name, monkeypatch):
    monkeypatch.setattr(registration_contrast, "has_ants", lambda: ants)
    native, arterial = (body_alone(phantom(phase)[0], is_ct=True) for phase in ("native", "arterial"))
    truth = wave(arterial, 12)
    field, _ = deformation(native, warped(arterial, truth), is_ct=True)
    # the deformed scan shows at x what lay at x + w(x); to find it there, u(x) = -w(x + u(x))
    found = sitk.GetArrayFromImage(
        sitk.TransformToDisplacementField(
            sitk.CompositeTransform([transform_of_field(truth), transform_of_field(field)]),
            sitk.sitkVectorFloat64,
            field.GetSize(),
            field.GetOrigin(),
            field.GetSpacing(),
        )
    )
    left, before = (np.linalg.norm(array, axis=-1)[BODY].mean() for array in (found, sitk.GetArrayFromImage(truth)))
    assert before > 3 and left < 0.4 * before


def test_of_ct_the_body_is_left_within_limits():
    image = phantom("native")[0]
    array = sitk.GetArrayFromImage(image)
    array[0, 30:34, 40:44] = 3000  # metal
    array[:, :3] = -3024  # beyond the field of view
    with_metal = sitk.GetImageFromArray(array)
    with_metal.CopyInformation(image)
    found = sitk.GetArrayFromImage(body_alone(with_metal, is_ct=True))
    assert found.min() == -1000 and found.max() == 1000 and found.dtype == np.float32
    assert (array[:, 60:63] > -700).any() and (found[:, 60:63] == -1000).all()  # the table is gone
    inside = BODY & (array < 1000) & (array > -1000)
    assert np.array_equal(found[inside], array[inside])


@pytest.mark.parametrize(("is_ct", "message"), [(True, "above -500 HU; expected CT"), (False, "have one value")])
def test_no_body(is_ct, message):
    with pytest.raises(DataError, match=message):
        body_alone(as_image(np.full((4, 5, 6), -1000.0, np.float32)), is_ct)


def test_what_is_added_or_multiplied_in_a_neighbourhood_is_undone():
    image = blobs()
    scaled = image / 100.0
    found, other = (sitk.GetArrayFromImage(locally_normalised(one)) for one in (scaled, scaled * 3 + 5))
    body = sitk.GetArrayViewFromImage(image) > 60
    np.testing.assert_allclose(found[body], other[body], atol=0.35)
    assert np.corrcoef(found[body], other[body])[0, 1] > 0.97
    assert np.abs(found[body]).mean() > 0.3
    flat = as_image(np.full((8, 8, 8), 7.0, np.float32))
    np.testing.assert_allclose(sitk.GetArrayFromImage(locally_normalised(flat)), 0, atol=1e-2)


def test_mr_that_is_brighter_to_one_side_stays_where_it_is(monkeypatch):
    monkeypatch.setattr(registration_contrast, "has_ants", lambda: False)
    scan = blobs(noise=2)
    array = sitk.GetArrayFromImage(blobs(noise=2, seed=1))
    brighter = as_image(array * np.linspace(1, 2, array.shape[2], dtype=np.float32))
    field, _ = deformation(body_alone(scan, is_ct=False), body_alone(brighter, is_ct=False), is_ct=False)
    lengths = np.linalg.norm(sitk.GetArrayFromImage(field), axis=-1)
    assert lengths[sitk.GetArrayViewFromImage(scan) > 60].mean() < 0.6  # mm, a third of a voxel
