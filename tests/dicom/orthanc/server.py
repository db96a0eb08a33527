"""A real PACS on this machine: Orthanc with its DICOMweb plugin, and the tools that send to it and check files.

    python -m tests.dicom.orthanc.server      # starts one, prints its ports, and stops it when Enter is pressed

Debian's packages are in :data:`PACKAGES`. The server keeps everything in a folder of its own and stops with the block.
"""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

from tests.ports import free_ports

PACKAGES = ("orthanc", "orthanc-dicomweb", "dcmtk", "dicom3tools")
COMMANDS = ("Orthanc", "storescu", "dciodvfy")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class NotStarted(Exception):
    """Orthanc does not run; the message says why."""


def why_not(*commands: str) -> str:
    """Return why a tool cannot be run here; empty where it can. :param commands: by default all."""
    missing = [name for name in commands or COMMANDS if shutil.which(name, path=PATH) is None]
    if not missing and (commands or PLUGIN.exists()):
        return ""
    packages = " ".join(PACKAGES)
    return f"no {missing[0] if missing else PLUGIN} (as root: apt-get install --no-install-recommends {packages})"


@dataclass(frozen=True)
class Server:
    """A running Orthanc. :param http: its port for REST and DICOMweb. :param dicom: its port for C-STORE."""

    http: int
    dicom: int

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> bytes:
        """Send a request. :param body: None: GET; else POST."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/{path}", body, named)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read()

    def find(self, level: str, **query: str) -> list[str]:
        """Find objects as a viewer does, as ``find("Instance", PatientID="P1")``; return Orthanc's names."""
        return json.loads(self.ask("tools/find", json.dumps({"Level": level, "Query": query}).encode()))

    def tags(self, instance: str) -> dict[str, Any]:
        """Return the attributes of an instance by keyword."""
        return json.loads(self.ask(f"instances/{instance}/simplified-tags"))

    def file(self, instance: str) -> bytes:
        """Return the DICOM file of an instance."""
        return self.ask(f"instances/{instance}/file")

    def forget_all(self) -> None:
        """Delete all patients."""
        for patient in json.loads(self.ask("patients")):
            address = f"http://127.0.0.1:{self.http}/patients/{patient}"
            urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=60).close()

    def c_store(self, files: Sequence[Path]) -> None:
        """Send files as a modality does (DCMTK's storescu), each kind of object as its own.

        :raises CalledProcessError: the server refused a file.
        """
        words = [shutil.which("storescu", path=PATH), "--required", "-aec", "ORTHANC", "127.0.0.1", str(self.dicom)]
        subprocess.run([*words, *map(str, files)], check=True, capture_output=True, text=True, timeout=300)

    def stow(self, files: Sequence[Path]) -> list[dict[str, Any]]:
        """Send files over DICOMweb (STOW-RS, PS3.18 10.5). :returns: the stored instances, as the server lists them."""
        edge = uuid.uuid4().hex
        parts = b"".join(
            f"--{edge}\r\nContent-Type: application/dicom\r\n\r\n".encode() + path.read_bytes() + b"\r\n"
            for path in files
        )
        kind = f'multipart/related; type="application/dicom"; boundary={edge}'
        body = parts + f"--{edge}--\r\n".encode()
        answer = self.ask("dicom-web/studies", body, Content_Type=kind, Accept="application/dicom+json")
        return json.loads(answer)["00081199"]["Value"]


@contextmanager
def running() -> Iterator[Server]:
    """Within the block an Orthanc runs; yield it.

    :raises NotStarted: a package is missing, or it does not answer within a minute.
    """
    if why := why_not():
        raise NotStarted(why)
    with tempfile.TemporaryDirectory(prefix="longflow-orthanc-") as folder:
        http, dicom = free_ports(2)
        settings = {
            "Name": "longflow tests",
            "StorageDirectory": f"{folder}/storage",
            "IndexDirectory": f"{folder}/index",
            "HttpPort": http,
            "DicomPort": dicom,
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": True,
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "UnknownSopClassAccepted": True,
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (Path(folder) / "orthanc.json").write_text(json.dumps(settings))
        log = Path(folder) / "orthanc.log"
        with open(log, "w") as file:
            words = [str(shutil.which("Orthanc", path=PATH)), f"{folder}/orthanc.json"]
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            server = Server(http, dicom)
            _wait_for(server, process, log)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(server: Server, process: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            server.ask("dicom-web/studies")
            return
        except (URLError, ConnectionError) as error:
            if process.poll() is not None or time.monotonic() > end:
                said = log.read_text()[-500:]
                raise NotStarted(f"Orthanc did not answer ({error}).\n{said}") from error
        time.sleep(0.2)


if __name__ == "__main__":
    with running() as one:
        input(f"HTTP {one.http}, DICOM {one.dicom}. Enter stops it. ")
