import json
import os

import pytest

from longflow.data.dataset import read_description, read_rows
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.integrity.dataset import verify_dataset
from tests.data.helpers import write_dataset
from tests.importers.helpers import run_import


@pytest.fixture
def source(tmp_path):
    """Two datasets with the subjects p1, p2 and p1, p3."""
    write_dataset(tmp_path / "raw" / "Dataset101_North")
    write_dataset(tmp_path / "raw" / "Dataset103_South", subjects=("p1", "p3"), times=(0, 10))
    return tmp_path / "raw"


@pytest.fixture
def raw(source):
    return source / "Dataset110_Both"


def run(source, raw, datasets=("101", "Dataset103_South"), **options):
    return run_import("join", source, raw, datasets=datasets, **options)


def change(folder, **keys):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def add_column(folder, name, value):
    first, *lines = (folder / "scans.csv").read_text().splitlines()
    (folder / "scans.csv").write_text("\n".join([f"{first},{name}", *(f"{line},{value}" for line in lines)]) + "\n")


def test_subjects_of_both_are_kept_and_same_names_get_a_prefix(source, raw, caplog):
    assert run(source, raw)
    rows = [(row.case, row.subject, row.time, row.covariates) for row in read_rows(raw / "scans.csv")]
    north, south = {"dataset": "Dataset101_North"}, {"dataset": "Dataset103_South"}
    assert rows == [
        ("North_p1_0", "North_p1", "0.0", north),
        ("North_p1_1", "North_p1", "30.0", north),
        ("North_p1_2", "North_p1", "75.0", north),
        ("South_p1_0", "South_p1", "0.0", south),
        ("South_p1_1", "South_p1", "10.0", south),
        ("p2_0", "p2", "0.0", north),
        ("p2_1", "p2", "30.0", north),
        ("p2_2", "p2", "75.0", north),
        ("p3_0", "p3", "0.0", south),
        ("p3_1", "p3", "10.0", south),
    ]
    theirs, own = read_description(source / "Dataset101_North" / "dataset.json"), read_description(raw / "dataset.json")
    assert own.model_dump(exclude={"numTraining"}) == theirs.model_dump()
    assert "have one name, and get the dataset's name as prefix: p1. If" in caplog.text
    assert verify_dataset(raw, processes=1) == []
    assert not run(source, raw), "nothing changed"


def test_files_are_links_to_those_of_the_sources(source, raw):
    run(source, raw)
    for folder, name in (("imagesTr", "{}p1_1_0000.nii.gz"), ("labelsTr", "{}p1_1.nii.gz")):
        theirs = source / "Dataset103_South" / folder / name.format("")
        assert os.path.samefile(theirs, raw / folder / name.format("South_"))


def test_all_channels_endings_periods_and_columns_are_kept(source, raw):
    for name in ("Dataset101_North", "Dataset103_South"):
        folder = source / name
        for path in [*(folder / "imagesTr").iterdir()]:
            os.link(path, path.with_name(path.name.replace("_0000", "_0001")))
        add_column(folder, "rr", 30 if name.endswith("North") else 8)
        channels = {"0": "T1", "1": "FLAIR"}
        change(folder, channel_names=channels, period="rr", covariates=["rr"], normalization={"1": "per_scan"})
    add_column(source / "Dataset101_North", "age", 63)
    run(source, raw)
    description = read_description(raw / "dataset.json")
    assert (description.channels, description.period, description.covariates) == (["T1", "FLAIR"], "rr", ["rr"])
    assert description.normalization == {"1": "per_scan"}
    rows = {row.case: row.covariates for row in read_rows(raw / "scans.csv")}
    assert rows["p2_0"] == {"dataset": "Dataset101_North", "rr": "30", "age": "63"}
    assert rows["p3_0"] == {"dataset": "Dataset103_South", "rr": "8", "age": ""}
    assert len(list((raw / "imagesTr").iterdir())) == 20


def test_a_segmentation_stays_one_and_its_test_subjects_have_no_targets(source, raw):
    for name in ("Dataset101_North", "Dataset103_South"):
        change(source / name, task="segment")
    run(source, raw, test=["p2"])
    assert read_description(raw / "dataset.json").task == "segment"
    assert len(list((raw / "imagesTs").glob("*.nii.gz"))) == 3 and not (raw / "targetsTs").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "channel_names",
            {"0": "FLAIR"},
            "channel_names = {'0': 'FLAIR'}, .* has {'0': 'T1'}.*channels of one network",
        ),
        ("time_unit", "weeks", "time_unit = weeks, .* has days.*convert the column time"),
        ("file_ending", ".nrrd", "file_ending"),
        ("labels", {"background": 0, "cavity": 1}, "labels = .*cavity.*one meaning"),
        ("period", 20, "period = 20.*has None"),
        ("covariates", ["age"], r"covariates = \['age'\].*has \[\]"),
        ("task", "segment", "task = segment"),
    ],
)
def test_datasets_of_other_kinds_are_refused(source, raw, key, value, message):
    change(source / "Dataset103_South", **{key: value})
    with pytest.raises((ConfigurationError, DataError), match=message):
        run(source, raw)
    assert not raw.exists()


@pytest.mark.parametrize("datasets", [(), ("101",), ("101", "Dataset101_North")])
def test_two_different_datasets_are_needed(source, raw, datasets):
    with pytest.raises(ConfigurationError, match="expected two or more different datasets"):
        run(source, raw, datasets=datasets)


def test_an_unknown_dataset_is_named_with_those_that_exist(source, raw):
    with pytest.raises(NotFoundError, match=r"no datasets '105'\. Found: Dataset101_North, Dataset103_South"):
        run(source, raw, datasets=("101", "105"))


def test_a_missing_image_is_named(source, raw):
    (source / "Dataset103_South" / "imagesTr" / "p3_1_0000.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 scans of .*Dataset103_South have no image: p3_1"):
        run(source, raw)


def test_datasets_of_one_name_have_the_number_in_the_prefix_and_joined_ones_keep_their_origin(source, raw):
    write_dataset(source / "Dataset102_North", subjects=("p1", "p9"))
    run(source, raw, datasets=("101", "102"))
    assert {row.subject for row in read_rows(raw / "scans.csv")} == {
        "Dataset101_North_p1",
        "Dataset102_North_p1",
        "p2",
        "p9",
    }
    again = source / "Dataset111_All"
    run(source, again, datasets=("110", "103"))
    origins = {row.subject: row.covariates["dataset"] for row in read_rows(again / "scans.csv")}
    assert origins["p9"] == "Dataset102_North" and origins["p3"] == "Dataset103_South"


def test_test_scans_stay_where_they_are_and_it_is_said(source, raw, caplog):
    (source / "Dataset103_South" / "imagesTs").mkdir()
    run(source, raw)
    assert "Excluded: Dataset103_South/imagesTs" in caplog.text and not (raw / "imagesTs").exists()
