"""The libraries of the extra ``dicom``: imported only where DICOM is read or written."""

import importlib.util

from longflow.errors import ConfigurationError

#: module of each library, and the package that brings it
LIBRARIES = {"pydicom": "pydicom", "highdicom": "highdicom", "gdcm": "python-gdcm"}


def require_dicom() -> None:
    """Check that the libraries for DICOM are installed, and let pydicom read headers with invalid values.

    pydicom warns of each value that breaks the standard, which most exports have. Every value that longflow uses is
    checked where it is used.

    :raises ConfigurationError: the extra ``dicom`` is not installed.
    """
    if missing := [package for module, package in LIBRARIES.items() if importlib.util.find_spec(module) is None]:
        raise ConfigurationError(
            f"DICOM needs {' and '.join(missing)}, which this Python does not have. Install: "
            'pip install "longflow[dicom]"'
        )
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
