"""Which slides lie in a folder: files, and DICOM slides of one or many files in one or many folders."""

import os
from pathlib import Path

import openslide

from service.readers.dicom_images import Instance, instances_of, slides_among
from service.readers.image_series import Picture
from service.readers.plain_images import is_image


def slides_in(folder: Path) -> list[Path] | None:
    """List the slides in a folder, and what only looks like one; None where the folder itself is a DICOM slide.

    Folders below are looked into for DICOM only. Raises OSError.
    """
    inside = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    instances = instances_of(folder)
    slides = slides_among(instances)
    others = [each for each in inside if not each.is_dir() and each not in {instance.path for instance in instances}]
    if len(slides) == 1 and not any(is_slide_file(each) for each in others):
        return None
    beside = [each.path for each in instances if each.path.parent == folder and _is_named(each, slides)]
    return sorted([*others, *beside, *(location(slide, slides, folder) for slide in slides)])


def location(slide: Picture, slides: list[Picture], folder: Path) -> Path:
    """Find what is opened for one of the DICOM slides below a folder: the folder of its own, else its largest file."""
    own = common_folder(slide)
    shared = any(own in file.parents for other in slides if other is not slide for file in other.files)
    return slide.files[0] if shared or own == folder else own


def common_folder(slide: Picture) -> Path:
    """Find the innermost folder that holds all files of a DICOM slide."""
    return Path(os.path.commonpath([file.parent for file in slide.files]))


def _is_named(instance: Instance, slides: list[Picture]) -> bool:
    """Tell whether a DICOM file that is no slide's level has an error of its own: images, if not of a slide's glass."""
    if instance.is_directory or instance.is_level:
        return False
    return not slides or (instance.size != (0, 0) and not instance.is_whole_slide)


def is_slide_file(path: Path) -> bool:
    """Say whether a file begins as slides and images do. Raises OSError."""
    return path.is_file() and (is_image(path) or openslide.OpenSlide.detect_format(path) is not None)
