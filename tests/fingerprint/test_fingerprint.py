import json

import pytest

from longflow.errors import ConfigurationError, DataError
from longflow.fingerprint.fingerprint import current_fingerprint, extract_fingerprint, read_fingerprint
from longflow.paths import DatasetPaths
from longflow.planning.run import plan_dataset
from tests.data.helpers import edit_description
from tests.planning.test_run import NAME, dataset  # noqa: F401  (a fixture)


@pytest.mark.usefixtures("dataset")
class TestFingerprint:
    """On two subjects with two scans each."""

    def test_it_survives_the_disk(self):
        fingerprint = extract_fingerprint(NAME, processes=1)
        assert read_fingerprint(DatasetPaths(NAME).fingerprint) == fingerprint
        assert fingerprint.subjects == ["a", "b"]
        assert fingerprint.temporal.times == [[0, 30], [0, 30]]

    def test_what_is_up_to_date_is_kept(self):
        extract_fingerprint(NAME, processes=1)
        path = DatasetPaths(NAME).fingerprint
        before = path.stat().st_mtime_ns
        extract_fingerprint(NAME, processes=1)
        assert path.stat().st_mtime_ns == before
        extract_fingerprint(NAME, processes=1, overwrite=True)
        assert path.stat().st_mtime_ns > before

    def test_a_changed_image_is_noticed(self):
        extract_fingerprint(NAME, processes=1)
        image = DatasetPaths(NAME).raw / "imagesTr" / "a0_0000.nii.gz"
        image.write_bytes(image.read_bytes() + b" ")
        with pytest.raises(DataError, match="have changed since"):
            current_fingerprint(NAME)

    def test_covariates_are_measured_and_a_changed_value_is_noticed(self):
        edit_description(DatasetPaths(NAME).raw, covariates=["age"])
        table = DatasetPaths(NAME).raw / "scans.csv"
        ages = iter(["age", "40", "", "50", "60"])
        table.write_text("\n".join(f"{line},{next(ages)}" for line in table.read_text().splitlines()))
        (age,) = extract_fingerprint(NAME, processes=1).covariates
        assert (age.known, age.mean, age.minimum, age.maximum) == (3, 50, 40, 60)
        assert plan_dataset(NAME, "tiny").plans.covariates[0].mean == 50
        table.write_text(table.read_text().replace(",60", ",61"))
        with pytest.raises(DataError, match="have changed since"):
            current_fingerprint(NAME)
        table.write_text(table.read_text().replace(",61", ",old"))
        with pytest.raises(DataError, match=r"case b1 \(column 'age' of scans.csv\) is 'old'"):
            extract_fingerprint(NAME, processes=1)

    def test_a_damaged_one_is_made_anew(self):
        path = DatasetPaths(NAME).fingerprint
        path.parent.mkdir(parents=True)
        path.write_text("{")
        assert extract_fingerprint(NAME, processes=1).subjects == ["a", "b"]

    def test_one_of_another_version_is_made_anew_and_never_read(self):
        extract_fingerprint(NAME, processes=1)
        path = DatasetPaths(NAME).fingerprint
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "version": "1"}))
        with pytest.raises(
            DataError, match=f"version 1 of the file, expected 2.*longflow_extract_fingerprint -d {NAME}"
        ):
            current_fingerprint(NAME)
        assert extract_fingerprint(NAME, processes=1).version == "2"

    def test_units_are_measured_for_forecasts_alone(self):
        """The visits here are noise, and have nothing in common."""
        maps = extract_fingerprint(NAME, processes=1).intensity_maps["0"]
        assert (maps.log_gains.count, maps.without_map) == (0, 2)
        dataset_json = DatasetPaths(NAME).raw / "dataset.json"
        dataset_json.write_text(json.dumps({**json.loads(dataset_json.read_text()), "task": "segment"}))
        assert extract_fingerprint(NAME, processes=1).intensity_maps is None

    def test_edited_into_nonsense(self):
        extract_fingerprint(NAME, processes=1)
        path = DatasetPaths(NAME).fingerprint
        content = json.loads(path.read_text())
        content["subjects"].append("c")
        path.write_text(json.dumps(content))
        with pytest.raises(ConfigurationError, match="has 2 entries, but there are 3 subjects"):
            read_fingerprint(path)

    def test_no_image_at_all(self):
        for image in (DatasetPaths(NAME).raw / "imagesTr").iterdir():
            image.unlink()
        with pytest.raises(DataError, match="None of the images"):
            extract_fingerprint(NAME, processes=1)
