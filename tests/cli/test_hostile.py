"""Model folders made to harm: each is refused with one message and exit code 1, in little time and memory."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import pytest
import torch

from longflow.cli import predict
from longflow.methods.weights import read_checkpoint, write_checkpoint
from longflow.plans import read_plans
from tests.training.helpers import finished_model

FULL = "configurations.3d_fullres"
ROOT = Path(__file__).parents[2]
#: what a refusal may take, the start of Python and torch included
SECONDS, BYTES = 10, 2**30


@pytest.fixture
def model(dataset):
    """A model that predicts, and the input ``imagesTr``."""
    folder = dataset.raw / "imagesTr"
    shutil.copy(dataset.raw / "scans.csv", folder / "scans.csv")
    return finished_model(dataset, read_plans(dataset.plans()))


def run(model, out):
    folder = model.folder.parents[2] / "raw" / model.folder.parent.name / "imagesTr"
    return predict.main(["-i", str(folder), "-o", str(out), "-t", "60", "--device", "cpu"])


def edit(path, place, value):
    content = json.loads(path.read_text())
    *folders, last = place.split(".")
    inside = content
    for key in folders:
        inside = inside[int(key)] if isinstance(inside, list) else inside[key]
    inside[last] = value
    path.write_text(json.dumps(content))


PLANS = {
    "patch of 10^27 voxels": (f"{FULL}.patch_size", [10**9] * 3),
    "10^9 features": (f"{FULL}.network.features_per_stage", [10**9, 10**9]),
    "features of another network": (f"{FULL}.network.features_per_stage", [8, 10_000]),
    "10^6 stages": (f"{FULL}.network.strides", [[1, 1, 1]] * 10**5),
    "no stages": (f"{FULL}.network.strides", []),
    "10^9 blocks": (f"{FULL}.network.blocks_per_stage", [10**9, 1]),
    "kernels of 10^9": (f"{FULL}.network.kernel_sizes", [[10**9] * 3, [3, 3, 3]]),
    "10^12 scans": ("temporal.sequence_length", 10**12),
    "10^12 slots": ("temporal.grid.length", 10**12),
    "10^9 steps": ("inference.steps", 10**9),
    "10^30 tiles": ("inference.tile_step_size", 1e-12),
    "a number of 4000 digits": ("training.epochs", 10**4000),
    "plans that are a list": ("configurations", []),
    "a configuration that is none": (FULL, None),
    "another task": ("task", "segment"),
    "a task that leads elsewhere": ("task", "../../x"),
    "a path as identifier": (f"{FULL}.data_identifier", "/etc"),
}


@pytest.mark.parametrize(("place", "value"), PLANS.values(), ids=PLANS)
def test_plans_made_to_harm(model, tmp_path, capsys, place, value):
    edit(model.plans, place, value)
    started = time.monotonic()
    assert run(model, tmp_path / "out") == 1
    shown = capsys.readouterr().err
    assert "Error:" in shown and "Traceback" not in shown and len(shown) < 20_000
    assert time.monotonic() - started < SECONDS
    assert not (tmp_path / "out").exists()


def pickled(path):
    torch.save({"weights": Evil()}, path)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


def header(size):
    return lambda path: path.write_bytes(struct.pack("<Q", size) + b"{}" * 100)


def links_to(target):
    def link(path):
        path.unlink()
        path.symlink_to(target)

    return link


def changed(change):
    def write(path):
        checkpoint = read_checkpoint(path)
        checkpoint.tensors = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
        change(checkpoint)
        write_checkpoint(checkpoint, path)

    return write


def cast(checkpoint):
    checkpoint.tensors = {name: tensor.to(torch.float64) for name, tensor in checkpoint.tensors.items()}


def squeeze(checkpoint):
    checkpoint.tensors = {name: tensor.reshape(-1) for name, tensor in checkpoint.tensors.items()}


WEIGHTS = {
    "a pickle": pickled,
    "a header of 2^60 bytes": header(2**60),
    "a header of 2^63 bytes": header(2**63),
    "a header of 50 MB": header(50 * 2**20),
    "nothing": lambda path: path.write_bytes(b""),
    "other numbers": changed(cast),
    "other shapes": changed(squeeze),
    "no weights": changed(lambda checkpoint: checkpoint.tensors.clear()),
    "options of another kind": changed(lambda checkpoint: checkpoint.header.update(options=[1])),
    "an option without end": changed(lambda checkpoint: checkpoint.header.update(options={"noise": [[[[]]]]})),
    "an unknown option": changed(lambda checkpoint: checkpoint.header.update(options={"../x": 1})),
    "a stage of text": changed(lambda checkpoint: checkpoint.header.update(stage="1")),
    "another method": changed(lambda checkpoint: checkpoint.header.update(method="../x")),
    "a device": links_to("/dev/zero"),
    "a link to nothing": links_to("nowhere"),
    "a link to itself": lambda path: links_to(path)(path),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("harm", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_made_to_harm(model, tmp_path, capsys, monkeypatch, harm):
    monkeypatch.chdir(tmp_path)
    harm(model.fold(0).final)
    started = time.monotonic()
    assert run(model, tmp_path / "out") == 1
    shown = capsys.readouterr().err
    assert "Error:" in shown and "Traceback" not in shown and len(shown) < 20_000
    assert time.monotonic() - started < SECONDS
    assert not (tmp_path / "out").exists() and not (tmp_path / "ran").exists()


def refused_by(launch: str, *arguments: object) -> str:
    """Run Python in a process of its own; return its message, after checking exit code, time and memory.

    :param launch: code that sets ``code``.
    """
    if not Path("/proc/self/status").is_file():
        pytest.skip("this system does not report the memory of a process")
    show = "; print(next(line for line in open('/proc/self/status') if 'VmHWM' in line)); raise SystemExit(code)"
    command = [sys.executable, "-c", f"import sys; {launch}{show}", *map(str, arguments)]
    before = os.times().children_user
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    peak = int(done.stdout.split("VmHWM:")[1].split()[0]) * 1024
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    # seconds of the processor: other tests may run at the same time
    assert os.times().children_user - before < SECONDS and peak < BYTES
    return done.stderr


def test_a_network_larger_than_memory_is_refused_within_limits(model, tmp_path):
    """Plans of 27 GB of weights whose identity the file has, and a tensor of 16 GB that is a hole of the file."""
    edit(model.plans, f"{FULL}.network.features_per_stage", [8, 10_000])
    identity = read_plans(model.plans).identity("3d_fullres")
    own = json.dumps({"method": "cronos", "plan_identity": identity})
    tensor = {"dtype": "F32", "shape": [2**32], "data_offsets": [0, 2**34]}
    text = json.dumps({"__metadata__": {"longflow": own}, "weights.a": tensor}).encode()
    with model.fold(0).final.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 2**34)
    launch = "from longflow.cli.predict import main; code = main(sys.argv[1:])"
    folder = tmp_path / "home" / "raw" / "Dataset001_Test" / "imagesTr"
    assert "checkpoint_final.safetensors" in refused_by(
        launch, "-i", folder, "-o", tmp_path / "out", "-t", 60, "--device", "cpu"
    )


def bomb(path, record: str, size: int) -> Path:
    """Write a .pth whose record is small in the file and has ``size`` zeros when it is read."""
    torch.save({"network_weights": {"a": torch.arange(4.0)}}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist() if not name.endswith(record)}
        (folder,) = {name.partition("/")[0] for name in archive.namelist()}
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(bytes(2**24)) + deflate.flush(zlib.Z_FULL_FLUSH)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
        archive.writestr(f"{folder}/{record}", block * (size // 2**24) + deflate.flush())
        archive.filelist[-1].compress_type, archive.filelist[-1].file_size = zipfile.ZIP_DEFLATED, size
    return path


LOAD = """
from longflow.cli import command
def work(options):
    from longflow.methods.registry import build_method
    from longflow.methods.transfer import load_pretrained
    from tests.methods.segmentation.helpers import segmentation_plans
    from pathlib import Path
    load_pretrained(build_method("unet", segmentation_plans(), "3d_fullres"), Path(options.file))
parser = command.Parser("test", "", "")
parser.add_argument("file")
code = command.run(parser, work, sys.argv[1:])"""


@pytest.mark.parametrize("record", ["data.pkl", "data/0"])
def test_a_pth_that_grows_to_10_gb_is_refused_within_limits(tmp_path, record):
    path = bomb(tmp_path / "a.pth", record, 10 * 2**30)
    assert path.stat().st_size < 20 * 2**20
    assert "its records are compressed" in refused_by(f"exec({LOAD!r})", path)
