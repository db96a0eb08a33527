import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from longflow.data.dataset import training_series
from longflow.errors import ConfigurationError, DataError, InUseError, NotFoundError, WorkerError
from longflow.files import write_json
from longflow.nnunet import RESAMPLING_MODULE
from longflow.paths import DatasetPaths, lock_in
from longflow.plans import read_plans, write_plans
from longflow.preprocessing import run
from longflow.preprocessing.run import preprocess_dataset
from longflow.preprocessing.series import load_prepared, prepare_series, prepared_subjects
from longflow.reading import read_json
from tests.conftest import another_process_holds
from tests.data.helpers import edit_description, edit_table, phase_array, write_image, write_phase_dataset
from tests.preprocessing.helpers import make_dataset, make_plans, translation_plans

NAME = "Dataset901_Test"
PREPARE = run._prepare


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return make_dataset(subjects=3)


def written(folder):
    """When each subject was finished."""
    return {path.stem: path.stat().st_mtime_ns for path in folder.glob("[!.]*.json")}


def check_all(dataset):
    """Every subject is finished, and is what it should be."""
    plans = read_plans(dataset.plans())
    folder = dataset.cache("longflowPlans", "3d_fullres")
    _, all_series = training_series(dataset.raw)
    assert prepared_subjects(folder) == [series.subject for series in all_series]
    for series in all_series:
        expected, found = prepare_series(series, plans, "3d_fullres"), load_prepared(folder, series.subject)
        assert found.properties == expected.properties
        assert np.array_equal(found.images[:], expected.images)


@pytest.mark.parametrize(("task", "expected"), [("forecast", []), ("segment", [RESAMPLING_MODULE])])
def test_the_server_imports_resampling_where_labels_are_learned_from(dataset, monkeypatch, task, expected):
    found = []
    monkeypatch.setattr(run, "worker_context", lambda *modules: found.extend(modules))
    monkeypatch.setattr(run, "for_each_subject", lambda *_: ())
    plans = read_plans(dataset.plans())
    plans.task = task
    monkeypatch.setattr(run, "read_plans", lambda path: plans)
    preprocess_dataset(NAME, processes=1)
    assert found == expected


def test_only_what_is_missing_or_stale_is_done(dataset):
    calls = []
    summary = preprocess_dataset(NAME, processes=1, progress=lambda *call: calls.append(call))
    assert (summary.prepared, summary.kept) == (3, 0) and summary.size > 0
    assert calls == [(1, 3, "s0"), (2, 3, "s1"), (3, 3, "s2")]
    check_all(dataset)
    (folder,) = summary.folders
    first = written(folder)

    assert preprocess_dataset(NAME, processes=1).kept == 3
    assert written(folder) == first

    os.utime(dataset.raw / "imagesTr" / "s0_0_0000.nii.gz", ns=(1, 1))  # as if it had been copied
    replaced = dataset.raw / "imagesTr" / "s1_0_0000.nii.gz"
    before = replaced.stat()
    content = bytearray(replaced.read_bytes())
    content[4] ^= 1  # the time in the header of gzip: another file of the same size
    replaced.write_bytes(content)
    os.utime(replaced, ns=(before.st_atime_ns, before.st_mtime_ns))
    summary = preprocess_dataset(NAME, processes=1)
    assert (summary.prepared, summary.kept) == (1, 2)
    assert {name for name, when in written(folder).items() if when != first[name]} == {"s1"}

    (folder / "s0.json").write_text("{ not json")
    assert preprocess_dataset(NAME, processes=1).prepared == 1
    assert preprocess_dataset(NAME, processes=1, overwrite=True).prepared == 3

    write_plans(make_plans(spacing=(4.0, 2.0, 2.0)), dataset.plans())
    assert preprocess_dataset(NAME, processes=1).prepared == 3
    check_all(dataset)


def test_a_cache_of_longflow_0_1_that_cannot_be_read_is_redone(dataset):
    (folder,) = preprocess_dataset(NAME, processes=1).folders
    write_json({**read_json(folder / "s1.json"), "labelled": True}, folder / "s1.json")
    with pytest.raises(DataError, match="Run longflow_preprocess again"):
        load_prepared(folder, "s1")
    assert preprocess_dataset(NAME, processes=1).prepared == 1
    check_all(dataset)


def test_a_subject_that_left_the_dataset_leaves_the_cache(dataset):
    folder = preprocess_dataset(NAME, processes=1).folders[0]
    table = dataset.raw / "scans.csv"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if ",s2," not in line) + "\n")
    preprocess_dataset(NAME, processes=1)
    assert prepared_subjects(folder) == ["s0", "s1"] and not list(folder.glob("s2*"))


def test_configurations_with_one_identifier_are_done_once(dataset):
    flat = {"patch_size": [8, 8], "network": {**make_plans().configurations["3d_fullres"].network.model_dump()}}
    flat["network"].update(strides=[[1, 1], [2, 2]], kernel_sizes=[[3, 3], [3, 3]])
    coarse = {"data_identifier": "3d_lowres", "spacing": [4.0, 2.0, 2.0]}
    plans = make_plans(spacing=(4.0, 1.0, 1.0), configurations={"2d": flat, "3d_fullres": {}, "3d_lowres": coarse})
    write_plans(plans, dataset.plans())
    summary = preprocess_dataset(NAME, processes=1)
    assert [folder.name for folder in summary.folders] == ["longflowPlans_3d_fullres", "longflowPlans_3d_lowres"]
    assert load_prepared(summary.folders[0], "s0").images.chunks[2] > 1  # the 3d patch shaped the chunks
    assert preprocess_dataset(NAME, configurations=["2d"], processes=1).kept == 3

    plans.configurations["2d"].spacing = [4.0, 3.0, 3.0]
    write_plans(plans, dataset.plans())
    with pytest.raises(ConfigurationError, match="2d and 3d_fullres share the data_identifier '3d_fullres'"):
        preprocess_dataset(NAME, processes=1)


def test_unknown_names_and_missing_plans(dataset):
    with pytest.raises(NotFoundError, match="Did you mean '3d_fullres'"):
        preprocess_dataset(NAME, configurations=["3d_fulres"])
    with pytest.raises(NotFoundError, match=r"Found there: longflowPlans\. Run: longflow_plan -d 901"):
        preprocess_dataset(NAME, "otherPlans")


def test_plans_of_other_channels_are_an_error(dataset):
    write_plans(make_plans(channels=("T2",)), dataset.plans())
    with pytest.raises(ConfigurationError, match=r"made for the channels \['T2'\], but dataset.json names \['MR'\]"):
        preprocess_dataset(NAME)


def test_a_full_disk_is_foreseen(dataset, monkeypatch):
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(DataError, match=r"need up to 0\.00 GB, but .* has 0\.00 GB free"):
        preprocess_dataset(NAME, processes=1)
    assert not dataset.cache("longflowPlans", "3d_fullres").exists()


def test_a_scan_that_cannot_be_read_is_named_and_the_others_are_kept(dataset):
    broken = dataset.raw / "imagesTr" / "s2_1_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=r"s2_1_0000\.nii\.gz is truncated"):
        preprocess_dataset(NAME, processes=1)
    assert prepared_subjects(dataset.cache("longflowPlans", "3d_fullres")) == ["s0", "s1"]


def start(home):
    script = Path(home) / "start.py"
    script.write_text(f"""
from longflow.preprocessing.run import preprocess_dataset

if __name__ == "__main__":  # workers import this file
    preprocess_dataset("{NAME}", processes=2)
""")
    environment = {**os.environ, "LONGFLOW_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    return psutil.Popen([sys.executable, str(script)], env=environment)


def test_killed_at_any_moment_it_goes_on(tmp_path, monkeypatch):
    """kill -9 between the first and the last finished subject; what was finished stays as it is."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset = make_dataset(subjects=20)
    folder = dataset.cache("longflowPlans", "3d_fullres")
    process = start(tmp_path)
    while process.poll() is None and not (folder.is_dir() and written(folder)):
        time.sleep(0.002)
    workers = process.children(recursive=True)
    time.sleep(random.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    for idle in psutil.wait_procs(workers, timeout=2)[1]:  # workers end with the command once they had a subject
        idle.kill()
    before = written(folder)
    assert before
    summary = preprocess_dataset(NAME, processes=1)
    assert summary.kept == len(before) and summary.prepared == 20 - len(before)
    after = written(folder)
    assert all(after[name] == when for name, when in before.items())
    check_all(dataset)
    assert not list(folder.glob(".unfinished-*"))


def test_a_killed_worker_does_not_stop_the_others(dataset, monkeypatch):
    """One worker dies: what was under way is done again, one at a time; if it dies again, its subject is named."""
    monkeypatch.setattr(run, "_prepare", killed_on_s1)
    with pytest.raises(WorkerError, match="worker on subject s1 was killed by the system"):
        preprocess_dataset(NAME, processes=2)
    assert "s0" in prepared_subjects(dataset.cache("longflowPlans", "3d_fullres"))


def killed_on_s1(job):
    if job.series.subject == "s1":
        os.kill(os.getpid(), signal.SIGKILL)
    PREPARE(job)


@pytest.fixture
def phase_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths = DatasetPaths("Dataset904_Phases")
    write_phase_dataset(paths.raw, subjects=("p1", "p2", "p3"), phases=("native", "arterial", "venous"))
    edit_description(paths.raw, phases=["native", "arterial"])
    write_plans(translation_plans(), paths.plans())
    return paths


def test_to_translate_pairs_alone_are_prepared_and_the_rest_is_said_once(phase_dataset, caplog):
    edit_table(phase_dataset.raw, "p2_0_arterial,p2,0", "p2_0_arterial,p2,9")
    write_image(phase_array(0, True, (4, 30, 30)), phase_dataset.raw / "imagesTr" / "p1_0_venous_0000.nii.gz")
    summary = preprocess_dataset(phase_dataset.name, processes=1)
    assert summary.prepared == 2
    for folder, shape in zip(summary.folders, ([4, 24, 20], [4, 12, 10]), strict=True):
        assert prepared_subjects(folder) == ["p1", "p3"]
        properties = load_prepared(folder, "p1").properties
        assert properties.cases == ["p1_0_arterial", "p1_0_native"]
        assert properties.phases == ["arterial", "native"]
        assert properties.pairs(["native", "arterial"]) == [(1, 0)]
        assert properties.shape == shape
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "Excluded: 1 subject without a pair (p2)",
        "Excluded: scans in other phases (3 venous)",
    ]
    assert preprocess_dataset(phase_dataset.name, processes=1).kept == 2


def test_a_subject_that_lost_its_pair_is_taken_out_of_the_cache(phase_dataset):
    (folder, _) = preprocess_dataset(phase_dataset.name, processes=1).folders
    assert prepared_subjects(folder) == ["p1", "p2", "p3"]
    (phase_dataset.raw / "imagesTr" / "p3_0_native_0000.nii.gz").unlink()
    preprocess_dataset(phase_dataset.name, processes=1)
    assert prepared_subjects(folder) == ["p1", "p2"]


def test_plans_of_other_phases(phase_dataset):
    edit_description(phase_dataset.raw, phases=["native", "venous"])
    with pytest.raises(ConfigurationError, match=r"made for the phases native, arterial, but .* has native, venous"):
        preprocess_dataset(phase_dataset.name, processes=1)


def test_a_pair_on_two_grids_needs_registration(phase_dataset):
    write_image(phase_array(0, True, (4, 24, 22)), phase_dataset.raw / "imagesTr" / "p1_0_arterial_0000.nii.gz")
    (phase_dataset.raw / "labelsTr" / "p1_0_arterial.nii.gz").unlink()
    with pytest.raises(DataError, match=r"p1.*longflow_register"):
        preprocess_dataset(phase_dataset.name, processes=1)


def test_what_keeps_its_grid_shares_no_data_with_what_does_not(phase_dataset):
    plans = translation_plans()
    plans.configurations["2d"].data_identifier = "3d_fullres"
    write_plans(plans, phase_dataset.plans())
    with pytest.raises(ConfigurationError, match="not the spacing: own grid and"):
        preprocess_dataset(phase_dataset.name, processes=1)


def test_one_process_prepares_a_configuration_at_a_time(dataset):
    folder = dataset.cache("longflowPlans", "3d_fullres")
    message = "3d_fullres of .* is being preprocessed by another process"
    with another_process_holds(lock_in(folder)), pytest.raises(InUseError, match=message):
        preprocess_dataset(NAME, processes=1)
    assert not list(folder.glob("*.json"))
    assert preprocess_dataset(NAME, processes=1).prepared > 0
    assert not lock_in(folder).exists()


def test_parts_of_the_subjects_are_prepared_at_the_same_time(dataset):
    folder = dataset.cache("longflowPlans", "3d_fullres")
    lock = lock_in(folder)
    with another_process_holds(lock.with_name(f"{lock.name}_1_of_2")):
        with pytest.raises(InUseError, match=r"Part 1 of 3d_fullres of .* is being preprocessed by another process"):
            preprocess_dataset(NAME, processes=1, part=(1, 2))
        summary = preprocess_dataset(NAME, processes=1, part=(2, 2))
    assert (summary.prepared, summary.kept) == (1, 0) and prepared_subjects(folder) == ["s1"]
    assert preprocess_dataset(NAME, processes=1, part=(1, 2)).prepared == 2
    check_all(dataset)
