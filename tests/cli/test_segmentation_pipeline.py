"""The way from scans and a few labels to volumes over time on a tiny phantom, with the commands as a user types them.

What a process of its own adds is tested with three of them; the others run in this one, where torch is loaded.
"""

import csv
import io
import json
import logging
import shutil
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from longflow.data.dataset import read_rows
from longflow.data.images import Volume, read_scan
from longflow.methods.registry import build_method
from longflow.methods.weights import Checkpoint, write_checkpoint
from longflow.paths import DatasetPaths
from longflow.plans import read_plans
from longflow.reading import read_json
from tests.inference.helpers import segmentation_model
from tests.inference.test_predictor import make_input
from tests.registration.helpers import as_image, blobs, moved, write_moved
from tests.training.helpers import finished_model

NAME = "Dataset901_BrainPhantom"
STRUCTURES = {"ventricles": 1, "thalami": 2, "lesions": 3}
PLAN = ("--preset", "tiny", "--gpu_memory", 0.1, "-np", 1)
TRAIN = ("train", 901, "3d_fullres", 0)

pytestmark = pytest.mark.slow


def here(module: str, *arguments: object) -> tuple[int, str]:
    """A command in this process: its exit code, and what it said, in one line."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = import_module(f"longflow.cli.{module}").main([str(argument) for argument in arguments])
    logging.getLogger("longflow").handlers = []
    assert "Traceback" not in said.getvalue()
    return code, " ".join(said.getvalue().split())


@pytest.fixture(scope="module")
def journey(brain_dataset, tmp_path_factory, run_command):
    """Home, and what each command said."""
    home, said = tmp_path_factory.mktemp("journey"), {}
    shutil.copytree(brain_dataset / "raw", home / "raw")
    images = home / "raw" / NAME / "imagesTs"

    def alone(key, command, *arguments):
        result = run_command(command, *arguments, home=home)
        assert result.returncode == 0 and "Traceback" not in result.stderr, f"{key}: {result.stderr}"
        said[key] = " ".join((result.stdout + result.stderr).split())

    def go(key, *arguments):
        code, said[key] = here(*arguments)
        assert code == 0, f"{key}: {said[key]}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGFLOW_HOME", str(home))
        patch.setenv("COLUMNS", "200")
        alone("plan", "longflow_plan_and_preprocess", "-d", 901, *PLAN)
        go("spatiotemporal", *TRAIN, "-m", "spatiotemporal", "--iterations", 3, "--set", "width=32")
        few = ("--pretrained", "spatiotemporal", "--labelled_subjects", 2)
        alone("few", "longflow_train", *TRAIN[1:], "-m", "unet_consistent", *few, "--iterations", 3)
        go("unet", *TRAIN, "--iterations", 12)
        go("pcl", "train", 901, "2d", 0, "-m", "pcl", "--iterations", 3)
        go("2d", "train", 901, "2d", 0, "-m", "unet", "--pretrained", "pcl", "--iterations", 3)
        go("ensembles", "find_best", "-d", 901, "-np", 1)
        shutil.copyfile(DatasetPaths(NAME).best, home / "with_ensembles.json")
        go("best", "find_best", "-d", 901, "-np", 1, "--no_ensembles")
        # nnU-Net, whose labels are compared with these, keeps all
        alone("predict", "longflow_predict", "-i", images, "-o", home / "out", "--keep_all_components")
        go("evaluate", "evaluate", "-d", 901, "-i", home / "out", "-np", 1)
        go("export", "export", "-d", 901, "-o", home / "nnunet")
        go("longitudinal", *TRAIN, "-m", "unet_longitudinal", "--pretrained", "unet", "--iterations", 3)
        go("with others", "predict", "-d", 901, "-m", "unet_longitudinal", "-i", images, "-o", home / "with_others")
    return home, said


@pytest.fixture
def home(journey, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(journey[0]))
    monkeypatch.setenv("COLUMNS", "200")
    return journey[0]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read(path: Path) -> Volume:
    return read_scan((path,))


def fold(method: str, configuration: str = "3d_fullres"):
    return DatasetPaths(NAME).model(method, "longflowPlans", configuration).fold(0)


def test_the_plan_is_for_segmentation(home, journey):
    plans = read_plans(DatasetPaths(NAME).plans())
    assert plans.task == "segment" and {"2d", "3d_fullres"} <= set(plans.configurations)
    assert "no problem found" in journey[1]["plan"] and "Next: longflow_train 901 3d_fullres 0" in journey[1]["plan"]


def test_pretraining_is_taken_over_and_two_subjects_are_labelled(home, journey):
    """Scans of the three others serve consistency alone."""
    paths = fold("unet_consistent")
    labelled = read_json(paths.labelled_subjects)
    assert len(labelled) == 2 and set(labelled) < {f"brain{number:03d}" for number in range(5)}
    taken = read_json(paths.pretrained)
    assert taken["file"] == str(fold("spatiotemporal").final) and len(taken["loaded"]) > 20
    assert all(name.startswith("decoder.seg_layers") for name, _ in taken["skipped"])
    assert f"{len(taken['loaded'])} tensors loaded" in journey[1]["few"]
    header = "".join(paths.progress_csv.read_text().splitlines()[:1])
    assert "loss_supervised" in header and "loss_consistency" in header


def test_scans_are_segmented_with_the_others_of_the_patient(home):
    """In the cross-validation as in new patients; what unet has learnt is kept at the start."""
    taken = read_json(fold("unet_longitudinal").pretrained)
    assert {name for name, _ in taken["skipped"]} == set() and len(taken["loaded"]) > 20
    of_fold = fold("unet_longitudinal").validation("labels")
    for folder in (of_fold, home / "with_others"):
        rows = read_rows(folder / "scans.csv")
        for row in rows:
            others = [one.case for one in rows if one.subject == row.subject and one.case != row.case]
            looked_at = read_json(folder / f"{row.case}.json")["other_scans"]
            assert looked_at and set(looked_at) >= set(others)


def test_slices_are_pretrained_and_segmented(home):
    assert read_json(fold("unet", "2d").pretrained)["file"] == str(fold("pcl", "2d").final)
    assert list(fold("unet", "2d").validation("labels").glob("*.nii.gz"))


def test_the_best_by_dice_is_what_predicts(home, journey):
    best = read_json(DatasetPaths(NAME).best)
    candidates = [row["candidate"] for row in best["table"]]
    assert sorted(candidates) == [
        "unet__longflowPlans__2d",
        "unet__longflowPlans__3d_fullres",
        "unet_consistent__longflowPlans__3d_fullres",
    ]
    assert best["candidate"] == candidates[0] and best["dice"] == max(row["dice"] for row in best["table"])
    assert f"{NAME} / {best['candidate']}, folds 0 (as recorded in" in journey[1]["predict"]


def test_ensembles_are_candidates_and_their_probabilities_are_kept(home, journey):
    best = read_json(home / "with_ensembles.json")
    assert len(best["table"]) == 3 + 3 and best["dice"] == max(row["dice"] for row in best["table"])
    assert len(best["members"]) == len(best["candidate"].split(" + "))
    alone = {row["candidate"]: row["dice"] for row in read_json(DatasetPaths(NAME).best)["table"]}
    assert {row["candidate"]: row["dice"] for row in best["table"] if " + " not in row["candidate"]} == alone
    for method, configuration in (("unet", "2d"), ("unet", "3d_fullres"), ("unet_consistent", "3d_fullres")):
        of_fold = fold(method, configuration)
        label_maps = {path.name.split(".")[0] for path in of_fold.validation("labels").glob("*.nii.gz")}
        assert {path.stem for path in of_fold.validation("probabilities").glob("*.npz")} == label_maps
    assert "validation/probabilities of each fold" in journey[1]["ensembles"]
    assert "probabilities" not in journey[1]["best"]


def test_volumes_are_a_count_of_the_labels_written(home):
    images, out = home / "raw" / NAME / "imagesTs", home / "out"
    scans = read_rows(images / "scans.csv")
    assert len(scans) >= 4
    assert [(row.case, float(row.time)) for row in read_rows(out / "scans.csv")] == [
        (row.case, float(row.time)) for row in scans
    ]
    table = {(row["case"], row["structure"]): row for row in rows_of(out / "volumes.csv")}
    assert len(table) == len(scans) * len(STRUCTURES)
    for scan in scans:
        labels, image = read(out / f"{scan.case}.nii.gz"), read(images / f"{scan.case}_0000.nii.gz")
        assert not labels.geometry.differences(image.geometry) and labels.data_type == "uint8"
        sidecar = read_json(out / f"{scan.case}.json")
        assert (sidecar["subject"], sidecar["time"]) == (scan.subject, float(scan.time))
        for structure, value in STRUCTURES.items():
            row, voxels = table[scan.case, structure], int((labels.array == value).sum())
            assert (row["subject"], float(row["time"]), int(row["voxels"])) == (scan.subject, float(scan.time), voxels)
            assert float(row["volume_ml"]) == pytest.approx(voxels * 8.25 * 7.5 * 7.5 / 1000)
            assert sidecar["volumes"][structure]["voxels"] == voxels
    assert len({row["voxels"] for row in table.values()}) > 2


def test_consistency_is_shown_next_to_that_of_the_reference(home, journey):
    metrics = read_json(home / "out" / "metrics.json")
    assert metrics["task"] == "segment" and list(metrics["by_structure"]) == list(STRUCTURES)
    truth = home / "raw" / NAME / "labelsTs"
    for name, value in STRUCTURES.items():
        consistency = metrics["by_structure"][name]["consistency"]
        assert {"stcs", "aspc", "true_stcs", "true_aspc"} <= set(consistency)
        assert consistency["true_aspc"]["mean"] == pytest.approx(mean_change(truth, value), abs=1e-6)
    for figure in ("volumes.png", "volume_changes.png"):
        assert (home / "out" / "figures" / figure).stat().st_size > 10_000
    assert "STCS" in journey[1]["evaluate"] and "reference" in journey[1]["evaluate"]


def mean_change(folder: Path, value: int) -> float:
    """ASPC in per cent (Ren et al.): |V2 - V1| / (0.5 (V1 + V2)) of neighbouring scans, mean over subjects."""
    of_subject = {}
    for path in sorted(folder.glob("*.nii.gz")):
        of_subject.setdefault(path.name.split("_")[0], []).append(int((read(path).array == value).sum()))
    changes = []
    for counts in of_subject.values():
        pairs = [(a, b) for a, b in pairwise(counts) if a + b]
        changes.append(np.mean([200 * abs(b - a) / (a + b) for a, b in pairs]))
    return float(np.mean(changes))


def test_nnunet_itself_predicts_the_same_labels(home):
    """As nnUNetv2_predict_from_modelfolder does it, with its own reader and preprocessing."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(home / "nnunet"), (0,))
    for scan in read_rows(home / "out" / "scans.csv"):
        file = home / "raw" / NAME / "imagesTs" / f"{scan.case}_0000.nii.gz"
        found = predictor.predict_single_npy_array(*SimpleITKIO().read_images([str(file)]))
        assert np.array_equal(found, read(home / "out" / f"{scan.case}.nii.gz").array[0])


def test_weights_that_do_not_fit_are_refused(home, tmp_path):
    """And nothing of the fold is begun."""
    plans = read_plans(DatasetPaths(NAME).plans())
    channels, wide = plans.model_copy(deep=True), plans.model_copy(deep=True)
    channels.channel_names, channels.channels = ["a", "b"], plans.channels * 2
    wide.configurations["3d_fullres"].network.features_per_stage = [24, 24, 24]
    refused = {"a 2D network, but the configuration in use is 3D": fold("pcl", "2d").final}
    for message, other in (("images of 2 channels", channels), ("another plan", wide)):
        refused[message] = tmp_path / f"{len(refused)}.safetensors"
        weights = build_method("unet", other, "3d_fullres").state_dict()
        tensors = {f"weights.{name}": tensor for name, tensor in weights.items()}
        write_checkpoint(Checkpoint(tensors, {"method": "unet"}), refused[message])
    refused["longflow_train 901 3d_fullres 1 -m lne"] = "lne"
    refused["neither a file nor a method"] = "spatiotemporall"
    for message, pretrained in refused.items():
        code, said = here("train", 901, "3d_fullres", 1, "--pretrained", pretrained, "--iterations", 1)
        assert code == 1 and message in said, said
    assert not DatasetPaths(NAME).model("unet", "longflowPlans", "3d_fullres").fold(1).final.exists()


def test_more_labelled_subjects_than_there_are(home):
    for value, message in (
        ("5", "expected a number from 1 to 4"),
        ("0", "from 1 to 4"),
        ("few", "there is no such file"),
    ):
        code, said = here("train", 901, "3d_fullres", 1, "--labelled_subjects", value, "--iterations", 1)
        assert code == 1 and message in said, said


def test_finished_work_is_kept(home):
    before = {path: path.stat().st_mtime_ns for path in (home / "results").rglob("*") if path.is_file()}
    labels = {path: path.stat().st_mtime_ns for path in (home / "out").glob("*.nii.gz")}
    few = ("--pretrained", "spatiotemporal", "--labelled_subjects", 2)
    assert here(*TRAIN, "-m", "unet_consistent", *few, "--iterations", 3)[0] == 0
    code, said = here(*TRAIN, "-m", "unet_consistent", "--pretrained", "spatiotemporal", "--iterations", 3)
    assert code == 1 and "was begun with labelled_subjects = 2" in said
    again = "predict", "-i", home / "raw" / NAME / "imagesTs", "-o", home / "out", "--keep_all_components"
    assert here(*again)[0] == 0
    assert all(path.stat().st_mtime_ns == when for path, when in (before | labels).items())


def test_awkward_scans_are_registered_and_trained_on(tmp_path, monkeypatch):
    """Other grids, a mirrored scan, a subject with one, labels at some scans, a structure that none has."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    raw = tmp_path / "raw" / "Dataset103_Visits"
    away = blobs(moved(4, (2, 0, 0)))
    away.SetOrigin((3, 0, 0))
    mirrored = as_image(np.ascontiguousarray(sitk.GetArrayFromImage(blobs())[..., ::-1]))
    subjects = {
        "alone": [blobs()],
        "grid": [blobs(), away],
        "mirrored": [blobs(), mirrored],
        "turned": [blobs(), blobs(moved(6))],
    }
    labels = {"background": 0, "body": 1, "blob": 2, "ghost": 3}
    write_moved(raw, subjects, labels=labels)

    code, said = here("plan_and_preprocess", "-d", 103, *PLAN)
    assert code == 1 and "longflow_register" in said and "--model rigid" in said and "grid_1_0000.nii.gz" in said, said
    code, said = here("register", "-d", 103, "--model", "rigid", "-np", 1)
    assert code == 1 and "one of the two scans is mirrored" in said and "1 subject could not be registered" in said
    registered = tmp_path / "raw" / "Dataset104_VisitsRegistered"
    assert {row.subject for row in read_rows(registered / "scans.csv")} == {"alone", "grid", "turned"}
    assert not list(registered.rglob("mirrored*.nii.gz"))

    code, said = here("plan_and_preprocess", "-d", 104, *PLAN)
    assert code == 0, said
    assert "labels.ghost" in said and "3 of 5 scans have one" in said and "1 of 3 have one scan" in said
    splits = [{"train": ["alone", "grid"], "val": ["turned"]}]
    DatasetPaths("Dataset104_VisitsRegistered").splits.write_text(json.dumps(splits))
    for method in ("spatiotemporal", "unet_consistent"):
        width = ("--set", "width=16") if method == "spatiotemporal" else ("--pretrained", "spatiotemporal")
        code, said = here("train", 104, "3d_fullres", 0, "-m", method, *width, "--iterations", 2)
        assert code == 0 and "1 subjects with one scan are excluded from the pairs (alone)" in said, said
    assert "labelled training scans has ghost: the network will not learn to find it" in said, said


def test_a_label_on_another_grid_stops_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    raw = write_moved(tmp_path / "raw" / "Dataset103_Visits", {"p": [blobs()], "q": [blobs()]})
    label = sitk.ReadImage(str(raw / "labelsTr/p_0.nii.gz"))
    label.SetOrigin((0, 0, 5))
    sitk.WriteImage(label, str(raw / "labelsTr/p_0.nii.gz"))
    code, said = here("plan_and_preprocess", "-d", 103, *PLAN)
    assert code == 1 and "labelsTr/p_0.nii.gz" in said and "origin" in said, said
    assert not (tmp_path / "preprocessed/Dataset103_Visits/longflowPlans.json").exists()


def test_a_forecast_is_segmented_as_a_scan(dataset, tmp_path):
    """An output folder is a valid input folder."""
    finished_model(dataset, read_plans(dataset.plans()))
    folder = make_input(dataset, tmp_path / "in")
    code, said = here("predict", "-i", folder, "-o", tmp_path / "forecasts", "--device", "cpu")
    assert code == 0, said
    shutil.rmtree(dataset.results)
    segmentation_model(dataset)
    code, said = here("predict", "-i", tmp_path / "forecasts", "-o", tmp_path / "labels", "--no-mirror")
    assert code == 0 and "2 label maps are in" in said, said
    for row in read_rows(tmp_path / "forecasts" / "scans.csv"):
        labels = read(tmp_path / "labels" / f"{row.case}.nii.gz")
        forecast = read(tmp_path / "forecasts" / f"{row.case}_0000.nii.gz")
        assert not labels.geometry.differences(forecast.geometry)
