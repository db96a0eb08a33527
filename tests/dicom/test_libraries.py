import importlib.util

import pytest

from longflow.dicom.libraries import require_dicom
from longflow.errors import ConfigurationError


def test_a_missing_extra_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gdcm" else found(name))
    with pytest.raises(ConfigurationError, match=r"needs python-gdcm.*pip install \"longflow\[dicom\]\""):
        require_dicom()
