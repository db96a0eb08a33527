"""Measure the first step of ``longflow_import dicom`` on a made export: time, memory, and what it finds.

    python benchmarks/dicom.py --patients 20 --visits 3 --series 6 --slices 56 --folder /tmp/export

The export has the patients' files in one heap, as a PACS may write them: 20 x 3 x 6 x 56 = 20160 files of 64 x 64
pixels.
"""

import argparse
import resource
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np

DESCRIPTIONS = ("Abdomen native 5.0", "Abdomen arterial 5.0", "Abdomen venous 5.0", "Abdomen thin 1.0", "Lung", "Bone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (("patients", 20), ("visits", 3), ("series", 6), ("slices", 56)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--processes", default="2", help="with 1, the processor time is that of all work (default: 2)")
    parser.add_argument("--folder", type=Path, required=True, help="for the export; made if it does not exist")
    options = parser.parse_args()
    export = options.folder / "export"
    if not export.exists():
        write_export(export, options)
    command = [
        sys.executable,
        "-m",
        "longflow.cli.import_dataset",
        "dicom",
        str(export),
        "-d",
        "999",
        "-n",
        "Benchmark",
    ]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "-np", options.processes, "--overwrite", "--review", str(options.folder / "review")], check=False
    )
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, files = time.perf_counter() - start, sum(1 for _ in export.iterdir())
    print(
        f"{files} files: {seconds:.1f} s, {usage.ru_utime + usage.ru_stime:.1f} s of processor time, "
        f"largest process {usage.ru_maxrss / 1e6:.2f} GB, exit code {done.returncode}"
    )


def write_export(folder: Path, options: argparse.Namespace) -> None:
    """Write the export: one header, changed for each file."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    header = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.Modality, header.ImageType = CTImageStorage, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.Rows = header.Columns = 64
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation, header.RescaleSlope, header.RescaleIntercept = 15, 0, 1, -1024
    header.PixelSpacing, header.ImageOrientationPatient, header.SliceThickness = [5, 5], [1, 0, 0, 0, 1, 0], 5
    header.PixelData = np.random.default_rng(0).integers(0, 2000, (64, 64), np.uint16).tobytes()
    number = 0
    for patient in range(options.patients):
        header.PatientID, header.PatientName = f"{patient:06d}", f"Patient^{patient}"
        for visit in range(options.visits):
            day = date(2020, 1, 1) + timedelta(days=90 * visit)
            header.StudyInstanceUID = f"1.2.3.{patient + 1}.{visit + 1}"
            header.StudyDate = header.AcquisitionDate = f"{day:%Y%m%d}"
            for series in range(options.series):
                header.SeriesInstanceUID = f"{header.StudyInstanceUID}.{series + 1}"
                header.SeriesNumber, header.SeriesDescription = series + 1, DESCRIPTIONS[series % len(DESCRIPTIONS)]
                for place in range(options.slices):
                    number += 1
                    header.SOPInstanceUID = f"{header.SeriesInstanceUID}.{place + 1}"
                    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
                    header.InstanceNumber, header.ImagePositionPatient = place + 1, [-160, -160, 5 * place]
                    header.save_as(folder / f"{number:08d}")


if __name__ == "__main__":
    main()
