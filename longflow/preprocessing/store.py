"""Keep prepared series on disk, a subject at a time: compressed, readable in part, written whole or not at all.

    {subject}_images.b2nd   float32 (scans, channels, z, y, x), Blosc2
    {subject}_seg.b2nd      int16 (scans, z, y, x), Blosc2, where a scan has a label
    {subject}_coarse.npy    float32 (scans, channels, z', y', x'), block means of the images
    {subject}_locations.npy int32 (places, 3), z, y, x of voxels of each label in each scan, for segmentation
    {subject}.json          the properties: what the arrays hold; written last, so that it marks a finished subject

Nothing is pickled. A Blosc2 chunk holds all scans over about a patch, and its blocks hold one scan and channel over a
small part of it; a read decompresses only the blocks that it touches.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import blosc2
import numpy as np

from longflow.errors import DataError
from longflow.files import atomic_write, write_json
from longflow.paths import path_in
from longflow.preprocessing.class_locations import ClassLocations
from longflow.preprocessing.prepared import PreparedSeries, SeriesProperties
from longflow.private import open_blosc2
from longflow.reading import read_json

BLOCK_VOXELS = 8192  # 32 kB of float32: a small share of a patch; half of it reads slower (benchmarks/preprocessing.py)
CHUNK_BYTES = 16 * 2**20
PATCH = (32, 128, 128)


def save_prepared(prepared: PreparedSeries, folder: Path, patch_size: Sequence[int] = PATCH) -> None:
    """Write a prepared series; an earlier one of the same subject is replaced.

    :param prepared: in memory, or loaded from another folder.
    :param folder: of the prepared subjects.
    :param patch_size: what training will read at once; it only shapes the chunks.
    :raises DataError: the disk is full or cannot be written to, or the subject's name cannot be a file's.
    """
    folder, subject = Path(folder), prepared.properties.subject
    finished = _properties_path(folder, subject)
    finished.unlink(missing_ok=True)  # from here until the end the subject is unfinished
    _write_blosc2(np.asarray(prepared.images[:]), folder / f"{subject}_images.b2nd", patch_size)
    segmentations = folder / f"{subject}_seg.b2nd"
    if prepared.segmentations is None:
        segmentations.unlink(missing_ok=True)
    else:
        _write_blosc2(np.asarray(prepared.segmentations[:]), segmentations, patch_size)
    with atomic_write(folder / f"{subject}_coarse.npy") as temporary:
        np.save(temporary, prepared.coarse, allow_pickle=False)
    content = {**prepared.properties.to_json(), "coarse_block": list(prepared.coarse_block)}
    content["locations"] = _save_locations(prepared.class_locations, folder / f"{subject}_locations.npy")
    write_json(content, finished)


def load_prepared(folder: Path, subject: str) -> PreparedSeries:
    """Open a prepared series; images and segmentations stay on disk until they are indexed.

    :param folder: of the prepared subjects.
    :param subject: the subject's name.
    :returns: the series with handles of its arrays.
    :raises DataError: the subject is not prepared, or its files are damaged.
    """
    folder = Path(folder)
    properties, coarse_block, rows = _read_stored(folder, subject)
    shape = (len(properties.cases), len(properties.data_type), *properties.shape)
    images = _open_blosc2(folder / f"{subject}_images.b2nd", shape)
    segmentations = None
    if any(properties.labelled):
        segmentations = _open_blosc2(folder / f"{subject}_seg.b2nd", (shape[0], *shape[2:]))
    block = tuple(coarse_block)
    expected = (*shape[:2], *(math.ceil(size / edge) for size, edge in zip(shape[2:], block, strict=True)))
    means = np.array(_open_npy(folder / f"{subject}_coarse.npy", expected))
    locations = None if rows is None else StoredLocations(folder / f"{subject}_locations.npy", rows)
    return PreparedSeries(properties, images, segmentations, means, block, locations)


def read_properties(folder: Path, subject: str) -> SeriesProperties:
    """Read what a prepared series holds; its arrays are not opened.

    :param folder: of the prepared subjects.
    :param subject: the subject's name.
    :returns: names, times, labels and geometry of its scans.
    :raises DataError: the subject is not prepared, or the file is damaged or of an older form.
    """
    return _read_stored(Path(folder), subject)[0]


def _read_stored(folder: Path, subject: str) -> tuple[SeriesProperties, list[int], dict | None]:
    """Read a subject's JSON: properties, block of the coarse means, rows of :class:`StoredLocations`."""
    path = _properties_path(folder, subject)
    if not path.is_file():
        raise DataError(f"Subject {subject} is not prepared in {folder}. Run longflow_preprocess.")
    content = read_json(path)
    if not isinstance(content, dict) or not {"coarse_block", "labelled", "cases"} <= set(content):
        raise _damaged(path, "it does not hold the properties of a prepared series")
    coarse_block, rows = content.pop("coarse_block"), content.pop("locations", None)
    if isinstance(content["labelled"], bool):
        content["labelled"] = _labelled_of_old_form(content, rows, path)
    return SeriesProperties.from_json(content), coarse_block, rows


def _labelled_of_old_form(content: dict, rows: dict | None, path: Path) -> list[bool]:
    """Tell which scans have a label where longflow 0.1 stored only whether any has one."""
    scans = range(len(content["cases"]))
    if not content["labelled"] or len(scans) == 1:
        return [content["labelled"] for _ in scans]
    if rows is None:
        raise DataError(
            f"{path} was written by longflow 0.1, which did not store which scans have a label. Run "
            "longflow_preprocess again."
        )
    return [str(scan) in rows for scan in scans]  # the places of labels were stored of every labelled scan


class StoredLocations(Mapping[int, dict[int, np.ndarray]]):
    """The positions of labels on disk; those of a scan are read when it is indexed.

    :param path: of the positions.
    :param rows: scan -> label value -> [start, stop], with keys as JSON has them.
    :raises DataError: the file is damaged.
    """

    def __init__(self, path: Path, rows: Mapping[str, Mapping[str, Sequence[int]]]):
        self._path = path
        self._rows = {int(scan): {int(value): span for value, span in spans.items()} for scan, spans in rows.items()}
        self._stop = max((stop for spans in self._rows.values() for _, stop in spans.values()), default=0)
        self._open()

    def __getitem__(self, scan: int) -> dict[int, np.ndarray]:
        spans, places = self._rows[scan], self._open()
        return {value: np.array(places[start:stop]) for value, (start, stop) in spans.items()}

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _open(self) -> np.ndarray:
        if not self._stop:
            return np.zeros((0, 3), dtype=np.int32)
        return _open_npy(self._path, (self._stop, 3))


def _save_locations(locations: ClassLocations | None, path: Path) -> dict[int, dict[int, list[int]]] | None:
    """Write all positions one after the other; return where those of each scan and label begin and end."""
    if locations is None:
        path.unlink(missing_ok=True)
        return None
    rows, arrays, start = {}, [np.zeros((0, 3), dtype=np.int32)], 0
    for scan, by_value in locations.items():
        rows[scan] = {}
        for value, places in by_value.items():
            rows[scan][value] = [start, start + len(places)]
            start += len(places)
            arrays.append(places)
    with atomic_write(path) as temporary:
        np.save(temporary, np.concatenate(arrays), allow_pickle=False)
    return rows


def files_of_subject(folder: Path, subject: str) -> list[Path]:
    """List the files of a prepared subject; the mark of its end is the last one.

    :param folder: of the prepared subjects.
    :param subject: the subject's name.
    :returns: the paths.
    :raises DataError: the subject is not prepared.
    """
    folder = Path(folder)
    properties, _, rows = _read_stored(folder, subject)
    ends = ["_images.b2nd", "_coarse.npy"]
    if any(properties.labelled):
        ends.append("_seg.b2nd")
    if rows is not None:
        ends.append("_locations.npy")
    return [path_in(folder, f"{subject}{end}") for end in (*ends, ".json")]


def prepared_subjects(folder: Path) -> list[str]:
    """List the subjects that are finished in a folder.

    :param folder: of the prepared subjects.
    :returns: their names, sorted.
    """
    return sorted(path.stem for path in Path(folder).glob("*.json"))


def remove_prepared(folder: Path, subject: str) -> None:
    """Delete the files of a subject, the mark of its end first.

    :param folder: of the prepared subjects.
    :param subject: the subject's name.
    """
    for end in (".json", "_images.b2nd", "_seg.b2nd", "_coarse.npy", "_locations.npy"):
        path_in(Path(folder), f"{subject}{end}").unlink(missing_ok=True)


def size_on_disk(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in Path(folder).glob("*") if path.is_file())


def chunks_and_blocks(shape: Sequence[int], patch_size: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose chunk and block shapes of an array whose last three axes are spatial.

    A block is a patch of one scan and channel, halved along one axis after the other until it has at most
    ``BLOCK_VOXELS`` voxels. Blocks with a patch's proportions read the fewest voxels outside it. A chunk has all scans
    and channels of as many blocks as a patch needs, fewer where there are many scans.

    :param shape: of the array, (..., z, y, x).
    :param patch_size: voxels along (z,) y, x.
    :returns: shape of a chunk, shape of a block.

    >>> chunks_and_blocks((20, 1, 10, 256, 216), (8, 128, 128))
    ((20, 1, 8, 128, 128), (1, 1, 2, 64, 64))
    """
    leading, spatial = tuple(shape[:-3]), tuple(shape[-3:])
    patch_size = (1,) * (3 - len(patch_size)) + tuple(patch_size)
    patch = [min(edge, size) for edge, size in zip(patch_size, spatial, strict=True)]
    block = _halved(patch, BLOCK_VOXELS)
    chunk = _halved(patch, max(math.prod(block), CHUNK_BYTES // (4 * math.prod(leading))))
    # whole blocks in a chunk, for both were halved from one patch
    chunk = [math.ceil(size / part) * part for size, part in zip(chunk, block, strict=True)]
    chunk = [min(size, whole) for size, whole in zip(chunk, spatial, strict=True)]
    return (*leading, *chunk), (*(1,) * len(leading), *block)


def _halved(sizes: Sequence[int], most_voxels: int) -> list[int]:
    """Halve the axis that was halved least, the first such axis first, until there are at most so many voxels."""
    sizes, halved = list(sizes), [0] * len(sizes)
    while math.prod(sizes) > most_voxels:
        axis = min((axis for axis, size in enumerate(sizes) if size > 1), key=lambda axis: (halved[axis], axis))
        sizes[axis] = math.ceil(sizes[axis] / 2)
        halved[axis] += 1
    return sizes


def _write_blosc2(array: np.ndarray, path: Path, patch_size: Sequence[int]) -> None:
    chunks, blocks = chunks_and_blocks(array.shape, patch_size)
    with atomic_write(path) as temporary:
        try:
            blosc2.asarray(
                np.ascontiguousarray(array),
                chunks=chunks,
                blocks=blocks,
                # reads three times as fast as ZSTD, at every training step, and takes a quarter more disk
                # (benchmarks/preprocessing.py)
                cparams={"codec": blosc2.Codec.LZ4, "clevel": 5, "nthreads": 1},
                urlpath=str(temporary),
                mode="w",
            )
        except RuntimeError as error:  # Blosc2 does not pass on the cause; a full disk is the likely one
            raise OSError(0, f"{error} (most often a full disk)") from error


def _open_blosc2(path: Path, shape: tuple[int, ...]) -> blosc2.NDArray:
    try:
        array = open_blosc2(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if further := set(getattr(array, "schunk", array).meta) - {"b2nd"}:
        raise _damaged(path, f"more than an array: {', '.join(sorted(further))}")
    if not isinstance(array, blosc2.NDArray) or tuple(array.shape) != tuple(shape):
        raise _damaged(path, f"found shape {getattr(array, 'shape', None)}, expected {shape}")
    return array


def _open_npy(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Open an array without reading it: its header may claim any size."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise _damaged(path, str(error)) from error
    if array.shape != shape:
        raise _damaged(path, f"found shape {array.shape}, expected {shape}")
    return array


def _damaged(path: Path, cause: str) -> DataError:
    return DataError(f"{path} is damaged ({cause}). Delete it and its .json and run longflow_preprocess again.")


def _properties_path(folder: Path, subject: str) -> Path:
    return path_in(folder, f"{subject}.json")
