"""DICOM in and out: files by content, series by headers, volumes with their geometry and times, labels, identifiers."""
