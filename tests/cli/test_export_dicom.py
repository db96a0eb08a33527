from pydicom import dcmread

from longflow.cli.export_dicom import main
from longflow.files import write_json
from tests.dicom.test_export import forecast_folder, label_folder


def test_predictions_of_an_imported_dataset_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    predictions, export = label_folder(tmp_path)
    raw = tmp_path / "home" / "raw" / "Dataset101_Liver"
    raw.mkdir(parents=True)
    review = raw.with_name("review_Dataset101_Liver")
    review.mkdir()
    (predictions / "dicom_sources.json").rename(review / "dicom_sources.json")
    words = ["-i", predictions, "-r", export, "-o", tmp_path / "dicom"]
    assert main([*map(str, words), "-d", "101", "--label_map"]) == 0
    assert "2 segmentations, 1 volume report in" in capsys.readouterr().out
    assert dcmread(tmp_path / "dicom" / "a_labels.dcm").SegmentationType == "LABELMAP"
    review.rename(tmp_path / "elsewhere")
    assert main([*map(str, words), "--review", str(tmp_path / "elsewhere")]) == 0
    assert main(list(map(str, words))) == 1
    assert "Give the dataset that was imported with -d" in capsys.readouterr().err


def test_letters_in_the_pixels_can_be_refused(tmp_path, capsys):
    predictions, export = forecast_folder(tmp_path)
    words = list(map(str, ["-i", predictions, "-r", export]))
    assert main([*words, "-o", str(tmp_path / "burned")]) == 0
    assert main([*words, "-o", str(tmp_path / "plain"), "--no_burned_in_text"]) == 0
    burned, plain = (dcmread(tmp_path / name / "S1_t380_0000" / "0001.dcm") for name in ("burned", "plain"))
    assert (burned.pixel_array != plain.pixel_array).any()


def test_errors_are_messages(tmp_path, capsys):
    predictions, export = forecast_folder(tmp_path)
    write_json({"context": ["x"], "horizon": 1.0}, predictions / "S1_t380.json")
    words = ["-i", str(predictions), "-o", str(tmp_path / "out"), "-r"]
    assert main([*words, str(tmp_path / "nothing")]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert main([*words, str(export)]) == 1
    assert "series of x_0000 is not known" in capsys.readouterr().err
