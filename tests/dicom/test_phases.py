import pytest

from longflow.dicom.phases import guess_phase, phase_of_words


@pytest.mark.parametrize(
    ("description", "phase"),
    [
        ("Abdomen nativ 5.0 B30f", "native"),
        ("ABD W/O 3mm", "native"),
        ("T1 non-contrast", "native"),
        ("Leber art. Phase", "arterial"),
        ("CTA aorta", "arterial"),
        ("portal venous 3.0", "venous"),
        ("Abd_PV_3", "venous"),
        ("late 5 min", "delayed"),
        ("Spätphase", "delayed"),
        ("T1 MPRAGE post GD", "contrast"),
        ("Thorax Lunge 1.0", ""),
        ("Prostate T2", ""),
        ("cartilage", ""),
    ],
)
def test_words(description, phase):
    assert phase_of_words(description)[1] == phase


@pytest.mark.parametrize(
    ("description", "contrast", "seconds", "phase", "doubtful"),
    [
        ("native", None, None, "native", False),
        ("native", "", None, "native", False),
        ("native", "Iomeron", None, "native", True),
        ("native", "Iomeron", -20, "native", False),
        ("venous", "", None, "venous", True),
        ("venous", "Iomeron", 70, "venous", False),
        ("venous", "Iomeron", 25, "venous", True),
        ("Abdomen", "Iomeron", 25, "arterial", False),
        ("Abdomen", None, 300, "delayed", False),
        ("Abdomen", "Iomeron", None, "contrast", False),
        ("Abdomen", "NO", None, "", False),
        ("T1 post", "Gadovist", 80, "venous", False),
        ("Abdomen", None, None, "", False),
    ],
)
def test_guesses(description, contrast, seconds, phase, doubtful):
    guess = guess_phase(description, contrast, seconds)
    assert (guess.phase, guess.doubtful) == (phase, doubtful) and guess.reason
