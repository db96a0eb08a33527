from contextlib import suppress

import blosc2
import numpy as np
import pytest

from longflow.errors import DataError
from longflow.files import write_json
from longflow.preprocessing.series import (
    RawSeries,
    load_prepared,
    prepare_volumes,
    prepared_subjects,
    read_properties,
    save_prepared,
)
from longflow.preprocessing.store import chunks_and_blocks, remove_prepared, size_on_disk
from longflow.reading import read_json
from tests.conftest import small_disk
from tests.preprocessing.helpers import make_plans, make_volume, segmentation_plans


@pytest.fixture
def prepared():
    volumes = [make_volume(shape=(6, 40, 48), seed=seed) for seed in range(3)]
    labels = [(volumes[0].array[0] > 500).astype(np.int16), None, None]
    plans = make_plans(spacing=(4.0, 1.0, 1.0))
    return prepare_volumes(RawSeries("s1", ["a", "b", "c"], [0, 1.5, 4], volumes, labels), plans, "3d_fullres")


def test_what_is_saved_is_what_is_loaded(tmp_path, prepared):
    save_prepared(prepared, tmp_path, patch_size=(4, 16, 16))
    loaded = load_prepared(tmp_path, "s1")
    assert loaded.properties == prepared.properties
    assert isinstance(loaded.images, blosc2.NDArray)
    assert loaded.images.dtype == np.float32 and loaded.segmentations.dtype == np.int16
    assert np.array_equal(loaded.images[:], prepared.images)
    assert np.array_equal(loaded.segmentations[:], prepared.segmentations)
    assert np.array_equal(loaded.coarse, prepared.coarse) and loaded.coarse_block == prepared.coarse_block
    assert prepared_subjects(tmp_path) == ["s1"]
    assert size_on_disk(tmp_path) > 1000


def test_a_loaded_series_can_be_saved_elsewhere(tmp_path, prepared):
    save_prepared(prepared, tmp_path / "one")
    save_prepared(load_prepared(tmp_path / "one", "s1"), tmp_path / "two")
    assert np.array_equal(load_prepared(tmp_path / "two", "s1").images[:], prepared.images)


def test_a_patch_over_all_scans_is_read_without_the_rest(tmp_path, prepared):
    """Blocks away from the patch may be destroyed: the patch reads the same, and reading all of it fails or differs."""
    save_prepared(prepared, tmp_path, patch_size=(6, 8, 8))
    images = load_prepared(tmp_path, "s1").images
    assert images.chunks == (3, 1, 6, 8, 8)
    patch = np.s_[:, :, :, :8, :8]
    expected = images[patch]
    assert np.array_equal(expected, prepared.images[patch])
    path = tmp_path / "s1_images.b2nd"
    content = bytearray(path.read_bytes())
    chunk = content.find(images.schunk.get_chunk(images.schunk.nchunks - 1)[32:])  # behind its header
    assert chunk > 0
    content[chunk : chunk + 64] = bytes(64)
    path.write_bytes(content)
    damaged = load_prepared(tmp_path, "s1").images
    assert np.array_equal(damaged[patch], expected)
    with suppress(RuntimeError):
        assert not np.array_equal(damaged[:], prepared.images)


def test_chunks_follow_the_patch_and_stay_small():
    chunks, blocks = chunks_and_blocks((20, 1, 10, 256, 216), (8, 128, 128))
    assert chunks == (20, 1, 8, 128, 128) and blocks == (1, 1, 2, 64, 64)
    chunks, blocks = chunks_and_blocks((20, 1, 10, 256, 216), (192, 160))  # a 2d patch
    assert chunks[:3] == (20, 1, 1) and blocks[:3] == (1, 1, 1)
    chunks, blocks = chunks_and_blocks((2, 1, 5, 6, 7), (32, 128, 128))  # smaller than a patch
    assert chunks == (2, 1, 5, 6, 7)
    chunks, blocks = chunks_and_blocks((300, 4, 160, 512, 512), (96, 160, 160))
    assert 4 * np.prod(chunks) < 2**28 and all(part <= whole for part, whole in zip(blocks, chunks, strict=True))


def test_labels_that_are_gone_are_gone(tmp_path, prepared):
    save_prepared(prepared, tmp_path)
    prepared.segmentations, prepared.properties.labelled = None, [False] * 3
    save_prepared(prepared, tmp_path)
    assert load_prepared(tmp_path, "s1").segmentations is None
    assert not (tmp_path / "s1_seg.b2nd").exists()


def test_a_subject_without_its_json_is_not_finished(tmp_path, prepared):
    save_prepared(prepared, tmp_path)
    (tmp_path / "s1.json").unlink()
    assert prepared_subjects(tmp_path) == []
    for read in (load_prepared, read_properties):
        with pytest.raises(DataError, match=r"s1 is not prepared .* Run longflow_preprocess"):
            read(tmp_path, "s1")


def test_properties_are_read_without_the_arrays(tmp_path, prepared):
    save_prepared(prepared, tmp_path)
    for path in (*tmp_path.glob("*.b2nd"), *tmp_path.glob("*.npy")):
        path.unlink()
    properties = read_properties(tmp_path, "s1")
    assert properties == prepared.properties
    assert (properties.cases, properties.labelled) == (["a", "b", "c"], [True, False, False])
    assert properties.scans_with_label == [0]


def as_longflow_0_1_wrote_it(folder, labelled=True):
    """``labelled`` was one value for all scans of a subject."""
    content = read_json(folder / "s1.json")
    write_json({**content, "labelled": labelled}, folder / "s1.json")


def test_an_older_cache_knows_labelled_scans_by_their_locations(tmp_path, with_locations):
    save_prepared(with_locations, tmp_path)
    as_longflow_0_1_wrote_it(tmp_path)
    (tmp_path / "s1_seg.b2nd").rename(tmp_path / "away")  # its voxels are not needed
    assert read_properties(tmp_path, "s1").labelled == [True, False, True]
    (tmp_path / "away").rename(tmp_path / "s1_seg.b2nd")
    assert load_prepared(tmp_path, "s1").properties == with_locations.properties


def test_an_older_cache_without_locations_is_prepared_again(tmp_path, prepared):
    save_prepared(prepared, tmp_path)
    as_longflow_0_1_wrote_it(tmp_path)
    for read in (load_prepared, read_properties):
        with pytest.raises(DataError, match=r"s1\.json was written by longflow 0\.1.* Run longflow_preprocess again"):
            read(tmp_path, "s1")


def test_an_older_cache_without_labels(tmp_path, prepared):
    prepared.segmentations, prepared.properties.labelled = None, [False] * 3
    save_prepared(prepared, tmp_path)
    as_longflow_0_1_wrote_it(tmp_path, labelled=False)
    assert load_prepared(tmp_path, "s1").properties == prepared.properties


@pytest.mark.parametrize("name", ["s1_images.b2nd", "s1_seg.b2nd", "s1_coarse.npy"])
def test_damaged_files_are_named(tmp_path, prepared, name):
    save_prepared(prepared, tmp_path)
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=f"{name} is damaged"):
        load_prepared(tmp_path, "s1")


def test_an_array_that_claims_to_be_huge_is_not_read(tmp_path, prepared):
    save_prepared(prepared, tmp_path)
    path = tmp_path / "s1_coarse.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=prepared.coarse.shape)
    header = path.read_bytes()[:128]
    claimed = f"({100_000_000_000},)".encode()
    shape = str(prepared.coarse.shape).encode()
    path.write_bytes(header.replace(shape, claimed.ljust(len(shape)))[:128])
    with pytest.raises(DataError, match=r"s1_coarse\.npy is damaged"):
        load_prepared(tmp_path, "s1")
    np.save(path, np.zeros((1, *prepared.coarse.shape), np.float32))
    with pytest.raises(DataError, match=r"s1_coarse\.npy is damaged \(found shape"):
        load_prepared(tmp_path, "s1")


def test_a_pickle_is_not_loaded(tmp_path, prepared):
    save_prepared(prepared, tmp_path)
    np.save(tmp_path / "s1_coarse.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"s1_coarse\.npy is damaged"):
        load_prepared(tmp_path, "s1")


@pytest.mark.parametrize("layer", ["proxy-source", "LazyArray", "b2o"])
def test_a_blosc2_file_that_would_reach_out_or_hold_code_is_not_followed(tmp_path, prepared, layer):
    save_prepared(prepared, tmp_path)
    path = tmp_path / "s1_images.b2nd"
    path.unlink()
    blosc2.asarray(np.asarray(prepared.images[:]), urlpath=str(path), mode="w", meta={layer: {"urlpath": "x"}})
    with pytest.raises(DataError, match=rf"s1_images\.b2nd is damaged \(more than an array: {layer}\)"):
        load_prepared(tmp_path, "s1")


def test_removing_a_subject_leaves_the_others(tmp_path, prepared):
    save_prepared(prepared, tmp_path)
    prepared.properties.subject = "s1_seg"  # no names collide
    save_prepared(prepared, tmp_path)
    remove_prepared(tmp_path, "s1")
    assert prepared_subjects(tmp_path) == ["s1_seg"]
    assert np.array_equal(load_prepared(tmp_path, "s1_seg").images[:], prepared.images)


@pytest.mark.parametrize("subject", ["../s1", "a/b", ".hidden", ""])
def test_a_subject_that_is_no_file_name_is_an_error(tmp_path, prepared, subject):
    prepared.properties.subject = subject
    with pytest.raises(DataError, match="cannot be a file name"):
        save_prepared(prepared, tmp_path / "inside")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_half_written(tmp_path, prepared):
    message = r"s1_images\.b2nd could not be written.*Free some space"
    with pytest.raises(DataError, match=message), small_disk(8192):
        save_prepared(prepared, tmp_path)
    assert prepared_subjects(tmp_path) == [] and not list(tmp_path.iterdir())


@pytest.fixture
def with_locations():
    volumes = [make_volume(shape=(6, 20, 24), seed=seed) for seed in range(3)]
    labels = [(volumes[0].array[0] > 500).astype(np.int16) + (volumes[0].array[0] > 900), None, None]
    labels[2] = np.zeros_like(labels[0])
    plans = segmentation_plans({"background": 0, "bright": 1, "brighter": 2}, spacing=(4.0, 1.0, 1.0))
    return prepare_volumes(RawSeries("s1", ["a", "b", "c"], [0, 1, 2], volumes, labels), plans, "3d_fullres")


def same_locations(one, other):
    assert set(one) == set(other)
    for scan, by_value in one.items():
        assert set(by_value) == set(other[scan])
        assert all(np.array_equal(places, other[scan][value]) for value, places in by_value.items())


def test_places_of_labels_are_kept(tmp_path, with_locations):
    save_prepared(with_locations, tmp_path / "one")
    loaded = load_prepared(tmp_path / "one", "s1")
    same_locations(with_locations.class_locations, loaded.class_locations)
    assert set(loaded.class_locations[0]) == {1, 2} and loaded.class_locations[2] == {}
    save_prepared(loaded, tmp_path / "two")
    same_locations(with_locations.class_locations, load_prepared(tmp_path / "two", "s1").class_locations)
    with_locations.class_locations = None
    save_prepared(with_locations, tmp_path / "one")
    assert load_prepared(tmp_path / "one", "s1").class_locations is None
    assert not (tmp_path / "one" / "s1_locations.npy").exists()
    remove_prepared(tmp_path / "two", "s1")
    assert not list((tmp_path / "two").iterdir())


def test_no_voxel_of_any_label(tmp_path, with_locations):
    with_locations.class_locations = {0: {}}
    save_prepared(with_locations, tmp_path)
    assert dict(load_prepared(tmp_path, "s1").class_locations) == {0: {}}


@pytest.mark.parametrize("content", [np.zeros((3, 3), np.int32), np.array([{"a": 1}], dtype=object)])
def test_damaged_places_are_named(tmp_path, with_locations, content):
    save_prepared(with_locations, tmp_path)
    np.save(tmp_path / "s1_locations.npy", content, allow_pickle=True)
    with pytest.raises(DataError, match=r"s1_locations\.npy is damaged"):
        load_prepared(tmp_path, "s1")
