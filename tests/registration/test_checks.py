import numpy as np
import pytest
import SimpleITK as sitk

from longflow.registration.checks import (
    RegistrationError,
    _agreement,
    check_folding,
    check_matrix,
    check_orientation,
    check_overlap,
    check_similarity,
    correlation,
    correlation_ratio,
    similarity,
)
from longflow.registration.linear import pyramid
from tests.registration.helpers import SHAPE, as_image, blobs, moved


def flipped(image, *axes):
    return as_image(np.ascontiguousarray(np.flip(sitk.GetArrayFromImage(image), axes)))


def test_a_plausible_transform_passes():
    check_matrix(np.eye(4))
    check_matrix(moved(30, (100, 0, 0)) @ np.diag([1.1, 0.9, 1, 1]))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.diag([-1.0, 1, 1, 1]), r"mirrors the scan \(its determinant is -1"),
        (moved(75), "rotates the scan by 75 degrees"),
        (np.diag([1.0, 1, 1.6, 1]), "factors of 1.00 to 1.60"),
        (np.diag([0.5, 1.0, 1, 1]), "factors of 0.50 to 1.00"),
    ],
)
def test_a_transform_that_no_patient_makes_is_refused(matrix, message):
    with pytest.raises(RegistrationError, match=message):
        check_matrix(matrix)


def test_similarity():
    check_similarity(before=0.5, after=0.9)
    check_similarity(before=0.99, after=0.98)
    with pytest.raises(RegistrationError, match=r"hardly agree \(correlation within the body 0.10"):
        check_similarity(before=0.05, after=0.1)
    with pytest.raises(RegistrationError, match="agree less after registration"):
        check_similarity(before=0.8, after=0.7)


def test_the_correlation_counts_what_both_show():
    a = np.array([1.0, 2, 3, np.nan, 5, 6, 7, 8, 9, 10, 11, 12])
    b = np.array([2.0, 4, 6, 8, np.nan, 12, 14, 16, 18, 20, 22, -100])
    mask = np.arange(12) < 11
    assert correlation(a, b) < 0.5
    assert correlation(a[:11].repeat(2), b[:11].repeat(2)) == pytest.approx(1)
    assert correlation(a.repeat(2), b.repeat(2), mask.repeat(2)) == pytest.approx(1)
    assert correlation(a[:3], b[:3]) == 0
    assert correlation(np.ones(20), np.arange(20.0)) == 0


def test_the_correlation_ratio_knows_what_is_a_function_of_the_other():
    generator = np.random.default_rng(0)
    values = generator.uniform(-1, 1, 20000)
    assert correlation_ratio(values, values**2) > 0.99 > 0.1 > abs(correlation(values, values**2))
    assert correlation_ratio(values**2, values) == correlation_ratio(values, values**2)
    noisy = values + generator.normal(0, values.std(), values.size)
    assert correlation_ratio(values, noisy) == pytest.approx(correlation(values, noisy), abs=0.02)
    assert correlation_ratio(values, generator.uniform(-1, 1, values.size)) < 0.05
    # two tissues of one intensity in one of the scans: known in one direction alone, which is enough
    assert correlation_ratio(np.repeat([0.0, 1, 4, 5], 1000), np.repeat([0.0, 0, 7, 7], 1000)) == 1
    assert correlation_ratio(np.repeat([0.0, 0, 2, 2], 1000), np.repeat([0.0, 2, 0, 2], 1000)) == 0


def test_the_correlation_ratio_leaves_out_what_one_does_not_show():
    values = np.linspace(0, 1, 2000)
    other, mask = values**2, np.arange(2000) < 1500
    other[:100], other[1500:] = np.nan, 0
    assert correlation_ratio(values, other, mask) > 0.99
    assert correlation_ratio(values[:30], values[:30]) == 0
    assert correlation_ratio(np.ones(2000), values) == 0


def test_the_right_transform_is_more_similar_than_none():
    truth = moved(10, (4, 0, 0))
    still, turned = blobs(), blobs(truth)
    assert similarity(still, turned, truth) > 0.99 > 0.9 > similarity(still, turned, np.eye(4))


def test_scans_of_one_orientation_pass_its_check():
    still = pyramid(blobs(noise=3))
    assert check_orientation(still, pyramid(blobs(moved(5), noise=3, seed=1)), moved(5)) < 0.9


@pytest.mark.parametrize(
    ("axes", "words"),
    [((2,), r"mirrored \(left-right\)"), ((0, 1), "rotated by 180 degrees about its left-right")],
)
def test_a_scan_that_fits_better_mirrored_or_turned_is_refused(axes, words):
    with pytest.raises(RegistrationError, match=words):
        check_orientation(pyramid(blobs()), pyramid(flipped(blobs(), *axes)), np.eye(4))


def test_noise_is_not_called_mirrored_and_few_slices_prove_nothing():
    noise = as_image(np.random.default_rng(0).normal(100, 30, SHAPE).astype(np.float32))
    assert check_orientation(pyramid(blobs()), pyramid(noise), np.eye(4)) < 0.3
    # shifted by most of its height, what is left of the scan agrees as well as all of it
    still, away = blobs(noise=3), moved(0, (0, 0, 40))
    assert similarity(still, blobs(away, noise=3, seed=1), away) > 0.8
    assert _agreement(still, blobs(away, noise=3, seed=1), away) < 0.5


def test_contrast_medium_does_not_hide_the_right_transform():
    truth = moved(10, (4, 0, 0))
    still, turned = blobs(), sitk.Sin(blobs(truth) / 40)
    measured = [similarity(still, turned, matrix, correlation_ratio) for matrix in (truth, np.eye(4))]
    assert measured[0] > 0.95 and measured[0] > measured[1] + 0.1


def test_overlap():
    half, most = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    half[:2] = True
    assert check_overlap([half, most]) == 1
    with pytest.raises(RegistrationError, match="only 0% of the smallest field of view"):
        check_overlap([half, ~half])
    with pytest.raises(RegistrationError, match="only 25% of the smallest field of view"):
        check_overlap([half, most], smallest=128)


def test_a_deformation_that_folds_is_refused():
    def field(steepness):
        array = np.zeros((*SHAPE, 3))
        array[..., 0] = steepness * np.arange(SHAPE[2])  # mm; the Jacobian determinant is 1 + steepness
        return sitk.GetImageFromArray(array, isVector=True)

    assert check_folding(field(-0.5)) == 0
    with pytest.raises(RegistrationError, match=r"folds in .* of the voxels"):
        check_folding(field(-1.5))
