"""A real archive for tests: Orthanc with its DICOMweb plugin, of Debian's packages orthanc and orthanc-dicomweb."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import pydicom
import pytest
import requests
from dicomweb_client import DICOMwebClient

from tests.waiting import wait_until

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


class Orthanc:
    """An archive on a port of its own; `url` is where its DICOMweb is. Its data outlive `stop`."""

    def __init__(self, folder: Path, *, login: str | None = None) -> None:
        program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
        if program is None or not PLUGIN.exists():
            pytest.skip("needs Debian's orthanc and orthanc-dicomweb")
        self.program, self.folder = program, folder
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = int(taken.getsockname()[1])
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/dicom-web"
        self.auth = (str(login).partition(":")[0], str(login).partition(":")[2]) if login else None
        folder.mkdir(exist_ok=True)
        settings: dict[str, Any] = {
            "Name": "archive",
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": self.port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": login is not None,
            "RegisteredUsers": dict([self.auth]) if self.auth else {},
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))

    def __enter__(self) -> Self:
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen([self.program, self.folder / "orthanc.json"], stdout=log, stderr=log)
        wait_until(self._answers, told=lambda: (self.folder / "log").read_text())
        return self

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.root}/system", auth=self.auth, verify=False).status_code == 200
        except httpx.TransportError:
            return False

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)

    @contextmanager
    def client(self) -> Iterator[DICOMwebClient]:
        """One that others wrote, to look with."""
        with requests.Session() as session:
            session.auth = self.auth
            yield DICOMwebClient(self.url, session)

    def take(self, folder: Path) -> None:
        """Store the files of a folder."""
        with self.client() as client:
            client.store_instances([pydicom.dcmread(file) for file in sorted(folder.iterdir())])

    def instances(self) -> list[str]:
        """What it holds, by its own names."""
        found: list[str] = httpx.get(f"{self.root}/instances", auth=self.auth).json()
        return found
