"""What preprocessing costs, as ratios within one run: reading in part, compression, resampling.

    python benchmarks/preprocessing.py [--folder DIR] [--patch 8 128 128]

Without ``--folder`` a smooth noisy series of whole numbers is made (20 scans of 12 x 224 x 224, as a cine MR); with it,
the first subject of a preprocessed folder is taken. Everything runs on one thread. Times are medians; a patch is read
from a file that the system has in its cache, so what is compared is decompression, not the disk.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import blosc2
import numpy as np
import torch
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet
from rich.console import Console
from rich.table import Table

from longflow.nnunet import IMAGE_RESAMPLING, resample
from longflow.preprocessing.grid import resample_image, resampled_shape
from longflow.preprocessing.series import load_prepared, prepared_subjects
from longflow.preprocessing.store import chunks_and_blocks

CODECS = {
    "lz4 5 (ours)": (blosc2.Codec.LZ4, 5),
    "zstd 1": (blosc2.Codec.ZSTD, 1),
    "zstd 5": (blosc2.Codec.ZSTD, 5),
}
REPEATS = 15


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median duration."""
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return median(durations)


def phantom() -> np.ndarray:
    """(scans, 1, z, y, x): whole numbers in the normal form, smooth with noise, zero in the corners."""
    generator = np.random.default_rng(0)
    z, y, x = np.mgrid[-1:1:12j, -1:1:224j, -1:1:224j]
    smooth = 300 * (1 + np.cos(6 * x + 2 * z) * np.cos(5 * y)) * (x**2 + y**2 < 1)
    scans = [smooth * (1 + 0.1 * np.sin(phase)) for phase in np.linspace(0, 6, 20)]
    raw = np.stack([np.rint(scan + (scan > 0) * generator.normal(0, 15, scan.shape)) for scan in scans])[:, None]
    return ((raw - raw.mean()) / raw.std()).astype(np.float32)


def reading(images: np.ndarray, patch: list[int], folder: Path) -> Table:
    """Compare random patches from the store with the whole subject, for some codecs and for one chunk per scan."""
    table = Table(title=f"{images.shape}, patch {tuple(patch)} of all scans")
    for column in ("layout", "bytes / raw bytes", "write, s", "whole subject, ms", "patch, ms", "patch / whole"):
        table.add_column(column, justify="right")
    chunks, blocks = chunks_and_blocks(images.shape, patch)
    layouts = {name: (codec, level, chunks, blocks) for name, (codec, level) in CODECS.items()}
    layouts["half the block"] = (blosc2.Codec.LZ4, 5, chunks, (1, 1, max(1, blocks[2] // 2), *blocks[3:]))
    layouts["a chunk per scan"] = (blosc2.Codec.LZ4, 5, (1, *images.shape[1:]), (1, *images.shape[1:]))
    generator = np.random.default_rng(0)
    corners = [
        [
            int(generator.integers(0, max(size - part, 0) + 1))
            for size, part in zip(images.shape[2:], patch, strict=True)
        ]
        for _ in range(REPEATS)
    ]
    for name, (codec, level, chunk, block) in layouts.items():
        path = folder / "images.b2nd"
        settings = {"codec": codec, "clevel": level, "nthreads": 1}

        def write(path=path, chunk=chunk, block=block, settings=settings):
            blosc2.asarray(images, chunks=chunk, blocks=block, cparams=settings, urlpath=str(path), mode="w")

        writing = seconds(write, 3)
        array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
        whole = seconds(lambda array=array: array[:], 3)
        queue = iter(corners)

        def read(array=array, queue=queue):
            where = zip(next(queue), patch, strict=True)
            return array[(slice(None), slice(None), *(slice(start, start + part) for start, part in where))]

        part = seconds(read)
        share = path.stat().st_size / images.nbytes
        table.add_row(
            name, f"{share:.2f}", f"{writing:.2f}", f"{1e3 * whole:.0f}", f"{1e3 * part:.1f}", f"{part / whole:.2f}"
        )
    return table


def resampling(image: np.ndarray) -> Table:
    """Compare cubic resampling, ours and nnU-Net's, with its linear one in torch, there and back; (channels, z, y, x).

    Of thick slices and of voxels that are nearly cubes.
    """
    table = Table(title="resampling")
    for column in ("voxels", "method", "s", "time / cubic", "voxels unlike nnU-Net's", "error there and back"):
        table.add_column(column, justify="right")
    for spacing, target in (((8.0, 1.4, 1.4), (8.0, 1.1, 1.1)), ((2.0, 1.4, 1.4), (1.6, 1.1, 1.1))):
        shape = resampled_shape(image.shape[1:], spacing, target)
        expected, cubic = by_nnunet(image, shape, spacing, target), 0.0
        for name, method in {
            "cubic (ours)": resample_image,
            "cubic, nnU-Net": by_nnunet,
            "linear, torch": linear,
        }.items():
            needed = seconds(partial(method, image, shape, spacing, target), 3)
            cubic = cubic or needed
            found = method(image, shape, spacing, target)
            back = method(found, image.shape[1:], target, spacing)
            error = np.sqrt(np.mean((back - image) ** 2)) / image.std()
            other = f"{int((found != expected).sum())} of {found.size}"
            size = f"{image.shape[1:]} to {tuple(shape)}"
            table.add_row(size, name, f"{needed:.3f}", f"{needed / cubic:.2f}", other, f"{error:.3f}")
    return table


def linear(image: np.ndarray, shape: list[int], spacing: tuple, target: tuple) -> np.ndarray:
    return resample_torch_fornnunet(image, shape, spacing, target, num_threads=1)


def by_nnunet(image: np.ndarray, shape: list[int], spacing: tuple, target: tuple) -> np.ndarray:
    return resample(image, shape, spacing, target, IMAGE_RESAMPLING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a preprocessed folder, .../longflowPlans_3d_fullres")
    parser.add_argument("--patch", type=int, nargs=3, default=[8, 128, 128], metavar=("Z", "Y", "X"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.folder:
        images = load_prepared(options.folder, prepared_subjects(options.folder)[0]).images[:]
    else:
        images = phantom()
    with tempfile.TemporaryDirectory() as folder:
        console = Console()
        console.print(reading(images, options.patch, Path(folder)))
        console.print(resampling(images[0]))


if __name__ == "__main__":
    main()
