from pathlib import Path

from longflow.importers.scans import ImportedDataset, ImportedScan
from longflow.importers.summary import summary_of


def test_what_an_import_made():
    times = {"a": (0, 10), "b": (0, 30, 90), "c": (0,)}
    scans = [
        ImportedScan(
            *(f"{subject}{time}", subject, time, Path("x")),
            label=Path("y") if time else None,
            covariates={"phase": "native" if time else "venous"},
            part="context" if subject == "c" else "training",
        )
        for subject in times
        for time in times[subject]
    ]
    dataset = ImportedDataset(scans, "days", "CT", {}, excluded=[f"reason {number}" for number in range(10)])
    assert summary_of(dataset)[:5] == [
        ("subjects", "3, of which 1 for tests"),
        ("scans", "6, 1 to 3 of each subject"),
        ("intervals", "10 to 60 days, median 30"),
        ("phases", "native 3, venous 3"),
        ("labels", "3 of 6 scans"),
    ]
    assert summary_of(dataset)[5:7] == [("excluded", "reason 0"), ("", "reason 1")]
    assert summary_of(dataset)[-1] == ("", "and 2 more")


def test_nothing_over_time():
    text = dict(summary_of(ImportedDataset([ImportedScan("a", "a", 0, Path("x"))], "days", "CT", {})))
    assert text["scans"] == "1, 1 of each subject" and "nothing can be learned over time" in text["intervals"]
    assert summary_of(ImportedDataset([], "days", "CT", {}))[0] == ("subjects", "0")
