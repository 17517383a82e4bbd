"""Zips to test with: of slides, and such as nobody sends in good faith."""

import stat
import zipfile
from pathlib import Path


def write_zip(path: Path, entries: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip with files of these names and contents."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(entry(name, method=method), content)
    return path


def entry(name: str, *, mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    """An entry with a name as it is given: `ZipInfo` would cut it at a null byte."""
    info = zipfile.ZipInfo("x" * len(name))
    info.filename, info.external_attr, info.compress_type = name, mode << 16, method
    return info


def zip_folder(path: Path, folder: Path, inside: str = "") -> Path:
    """A zip of all files of a folder, below `inside`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{inside}{file.relative_to(folder)}")
    return path


def overwrite(path: Path, old: bytes, new: bytes) -> Path:
    """The same file with some bytes exchanged for as many others, wherever they are."""
    content = path.read_bytes()
    assert len(old) == len(new)
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path
