import logging
from dataclasses import asdict

import pytest
import torch

from longflow.distributed import Processes
from longflow.errors import ConfigurationError, ModelError, NotFoundError
from longflow.files import write_json
from longflow.job import FoldJob, FoldSettings
from longflow.methods.weights import Checkpoint, write_checkpoint
from longflow.paths import DatasetPaths
from longflow.plans import read_plans, write_plans
from longflow.reading import read_json
from longflow.training.run import Run, set_up_run
from longflow.training.start import check_same_settings, load_first_weights, pretrained_file
from tests.methods.segmentation.helpers import segmentation_plans
from tests.tasks.translate.cohort import make_pairs, phase_plans
from tests.training.helpers import finished_model, job_of, make_dataset
from tests.training.test_loop import train


@pytest.mark.parametrize(
    ("begun", "given", "message"),
    [
        ({"pretrained": "tfm"}, {}, "was begun with pretrained = tfm, this command has None"),
        ({"seed": 1}, {}, "was begun with seed = 1, this command has 0"),
        ({"labelled_subjects": "2"}, {"labelled_subjects": "3"}, "labelled_subjects = 2, this command has 3"),
        (
            {"options": {"width": 8}},
            {"options": {"width": 9}},
            r"options = {'width': 8}, this command has {'width': 9}",
        ),
    ],
)
def test_a_fold_keeps_the_settings_it_was_begun_with(dataset, begun, given, message):
    job = job_of(dataset, epochs=7, learning_rate=0.1, **begun)
    write_json({"settings": asdict(FoldSettings(**begun))}, job.paths.run)
    check_same_settings(job)
    with pytest.raises(ConfigurationError, match=message):
        check_same_settings(job_of(dataset, **given))


@pytest.mark.parametrize("record", [[], "text", {"settings": [1]}, None])
def test_a_record_of_another_kind_is_explained(dataset, record):
    job = job_of(dataset)
    write_json(record, job.paths.run)
    with pytest.raises(ConfigurationError, match=r"run\.json is no record of a training"):
        check_same_settings(job)


def test_pretrained_is_a_file_or_the_same_fold_of_a_method(dataset, tmp_path):
    plans = read_plans(dataset.plans())
    own = tmp_path / "weights.safetensors"
    own.touch()
    assert pretrained_file(job_of(dataset, "tfm", pretrained=str(own))) == own
    with pytest.raises(NotFoundError, match=r"'cronoss' is neither a file nor a method"):
        pretrained_file(job_of(dataset, "tfm", pretrained="cronoss"))
    source = finished_model(dataset, plans, fold=1)
    assert pretrained_file(job_of(dataset, "tfm", 1, pretrained="cronos")) == source.fold(1).final
    with pytest.raises(
        NotFoundError, match=r"Fold 0 .* finished are: 1\. Run first: longflow_train 001 3d_fullres 0 -m cronos"
    ):
        pretrained_file(job_of(dataset, "tfm", pretrained="cronos"))


def test_a_file_of_another_fold_has_seen_who_validates(dataset, caplog, tmp_path):
    source = finished_model(dataset, read_plans(dataset.plans()), fold=1).fold(1).final
    assert pretrained_file(job_of(dataset, "tfm", 1, pretrained=str(source))) == source and not caplog.records
    assert pretrained_file(job_of(dataset, "tfm", pretrained=str(source))) == source
    assert "was trained on subjects that validate fold 0" in caplog.text
    caplog.clear()
    elsewhere = tmp_path / "fold_3" / "weights.safetensors"
    elsewhere.parent.mkdir()
    elsewhere.touch()
    assert pretrained_file(job_of(dataset, "tfm", pretrained=str(elsewhere))) == elsewhere
    assert not caplog.records


@pytest.mark.parametrize("by_name", [True, False])
def test_a_fold_does_not_begin_with_what_it_overwrites(dataset, by_name):
    model = finished_model(dataset, read_plans(dataset.plans()))
    source = "cronos" if by_name else str(model.fold(0).final)
    with pytest.raises(ConfigurationError, match="weights of the fold that is to be trained from scratch"):
        train(dataset, pretrained=source, overwrite=True)
    assert model.fold(0).final.is_file()


def segmenting_run(index=0, **settings) -> Run:
    job = FoldJob(
        DatasetPaths("Dataset001_Test"), segmentation_plans(), "3d_fullres", "unet", 0, FoldSettings(**settings)
    )
    return set_up_run(job, Processes(index, 1, torch.device("cpu")), None)


def test_every_process_begins_with_the_weights_and_the_first_says_which(tmp_path, caplog):
    source = tmp_path / "source.safetensors"
    begun = segmenting_run(seed=1)
    tensors = {f"weights.{name}": tensor for name, tensor in begun.method.state_dict().items()}
    write_checkpoint(Checkpoint(tensors, begun.header), source)
    for index, said in ((1, False), (0, True)):
        run = segmenting_run(index)
        with caplog.at_level(logging.INFO):
            record = load_first_weights(run, source)
        assert all(torch.equal(tensor, tensors[f"weights.{name}"]) for name, tensor in run.average.items())
        assert record["file"] == str(source) and record["loaded"]
        counts = f"{len(record['loaded'])} tensors loaded, {len(record['skipped'])} skipped."
        assert (f"Pretrained weights of {source}: {counts}" in caplog.text) == said


def test_what_a_fold_was_begun_with_is_forgotten_when_it_is_trained_from_scratch(dataset):
    paths = dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    for path in (paths.pretrained, paths.labelled_subjects):
        write_json([], path)
    train(dataset, iterations=1, overwrite=True)
    assert paths.final.is_file() and not paths.pretrained.exists() and not paths.labelled_subjects.exists()


def test_a_method_trained_with_other_plans_is_no_start(dataset):
    """Its spacing or intensities may be others, which shapes do not tell."""
    plans = read_plans(dataset.plans())
    finished_model(dataset, plans)
    plans.configuration("3d_fullres").spacing = [2, 1, 1]
    write_plans(plans, dataset.plans())
    with pytest.raises(ModelError, match="was trained with another plan"):
        pretrained_file(job_of(dataset, "tfm", pretrained="cronos"))


def test_a_forecast_starts_from_another_one(dataset, caplog):
    source = finished_model(dataset, read_plans(dataset.plans()), "tfm", random=True).fold(0)
    with caplog.at_level(logging.INFO):
        train(dataset, fold=0, iterations=1, pretrained="tfm")
    record = read_json(dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0).pretrained)
    assert record["file"] == str(source.final) and "network.encoder.0.conv1.weight" in record["loaded"]
    assert "of all numbers are pretrained. Skipped: network.stem.weight (places of scans" in caplog.text


def test_a_refused_start_costs_nothing(dataset):
    finished = finished_model(dataset, read_plans(dataset.plans()), random=True).fold(0).final
    weights = finished.read_bytes()
    other = finished_model(dataset, read_plans(dataset.plans()), "vivit").fold(0).final
    with pytest.raises(ModelError, match="a network of another kind or plan"):
        train(dataset, fold=0, iterations=1, pretrained=str(other), overwrite=True)
    assert finished.read_bytes() == weights, "a mistake cost a finished fold"


def test_a_forecast_does_not_start_from_a_pretraining_of_segmentation(dataset):
    with pytest.raises(ConfigurationError, match="'spatiotemporal' is a pretraining for the task 'segment', and no"):
        pretrained_file(job_of(dataset, "cronos", pretrained="spatiotemporal"))


def test_a_network_of_another_kind_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    plans = phase_plans()
    dataset, _ = make_pairs(plans)
    finished_model(dataset, plans, "mfm-segresnet", random=True)
    with pytest.raises(ModelError, match="a network of another kind or plan: 4 of"):
        train(dataset, "mfm", iterations=1, pretrained="mfm-segresnet")
    with pytest.raises(NotFoundError, match=r"Fold 1 of mfm-segresnet.* is not trained to its end; finished are: 0"):
        train(dataset, "mfm", fold=1, iterations=1, pretrained="mfm-segresnet")
    assert not dataset.model("mfm", "longflowPlans", "3d_fullres").folder.exists()


@pytest.mark.parametrize("method", ["cronos", "mfm"])
def test_labels_are_not_chosen_for_a_method_that_learns_from_none(tmp_path, monkeypatch, method):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset = make_dataset(subjects=2) if method == "cronos" else make_pairs(phase_plans())[0]
    with pytest.raises(ConfigurationError, match=f"--labelled_subjects 1: the method '{method}' does not learn from"):
        train(dataset, method, iterations=1, labelled_subjects="1")
    assert not dataset.results.exists()
