"""The recipe of a training run: all settings with their defaults and meanings, read from TOML and written to it.

A recipe file may leave keys out; they then have the defaults below. Single settings are changed by KEY=VALUE, where a
key in a table is written with a dot: `augmentation.blur=0.2`.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import FileMissing, ParameterInvalid
from service.model_card import Architecture, MppOfModel
from service.tiling import PATCH_PX

Schedule: TypeAlias = Literal["constant", "cosine"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
StainScope: TypeAlias = Literal["field", "case", "none"]
Selection: TypeAlias = Literal["best_f1", "f1", "auc"]
Judge: TypeAlias = Literal["last", "best"]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Rule: TypeAlias = Literal["youden", "f1", "smooth-f1", "case-f1", "quiet"]

RECIPE = "recipe.toml"  # beside the weights
HEADER = """\
# A training recipe, for `mitosis train`, `cross-validate` and `ablate` (--recipe FILE, single settings by --set).
# A key that is left out has its default; `mitosis train --print-recipe` prints all defaults.
"""
COMMENT_COLUMN = 32


class Table(BaseModel):
    """Settings that cannot be changed once made, and that have no key but their own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Augmentation(Table):
    """The variation from one look at a mitosis to the next; drawn evenly."""

    margin_px: float = Field(default=20.0, ge=0, description="a mitosis this near to a patch's border has no label")
    free_rotation: Share = Field(
        default=0.5, description="share of patches turned by any angle; others by right angles"
    )
    zoom: Share = Field(default=0.0, description="turned ones up to 1 + this times as large, or small")
    flips: bool = Field(default=True, description="right angles and reflections")
    blur: Share = Field(default=0.3, description="share of patches blurred")
    blur_sigma_px: tuple[float, float] = Field(default=(0.3, 1.2), description="least and greatest blur")
    reflection: Share = Field(default=0.0, description="share of patches of which a part mirrors the rest")
    stain_gain: float = Field(default=0.15, ge=0, lt=1, description="each stain's concentrations times 1 +- this")
    stain_shift: Share = Field(default=0.03, description="plus +- this part of the stain's maximum")
    brightness: float = Field(default=0.05, ge=0, lt=1, description="intensities times 1 +- this")
    restain: Share = Field(default=0.0, description="share of patches given stains towards another case's")

    @model_validator(mode="after")
    def _check_blur(self) -> Self:
        if not 0 < self.blur_sigma_px[0] <= self.blur_sigma_px[1]:
            raise ValueError(f"blur_sigma_px {self.blur_sigma_px} is not a range above 0, least first")
        return self


class CrossValidation(Table):
    """The way that `mitosis cross-validate` measures and chooses the threshold; no weights depend on it."""

    judge: Judge = Field(
        default="last", description="a fold's epoch: last, or best on its own cases, which is optimistic"
    )
    calibrate: Share = Field(default=0.0, description="share of a slide's own score level taken off its scores")
    second_look: Share = Field(default=0.0, description="probability from which a place is looked at again; 0: none is")
    second_look_zoom: float = Field(
        default=0.0, ge=0, le=0.5, description="half of the looks are this part larger, half smaller"
    )
    threshold_rule: Rule = Field(default="f1", description="youden, f1, smooth-f1, case-f1 or quiet")

    @property
    def card_second_look(self) -> dict[str, float] | None:
        """The second look as a model card has it."""
        return {"above": self.second_look, "zoom": self.second_look_zoom} if self.second_look else None


class TrainingSettings(Table):
    """A run's recipe; the defaults are the paper's, and METHOD's where the paper is silent."""

    architecture: Architecture = Architecture()
    epochs: int = Field(default=40, gt=0)
    batch: int = Field(default=32, ge=2, description="patches per step, every other one with a mitosis")
    learning_rate: float = Field(default=1e-4, gt=0, description="Adam's")
    schedule: Schedule = Field(default="constant", description="of the learning rate; cosine: falls to 0")
    cycles: int = Field(default=1, gt=0, description="that the epochs are divided into; cosine: each falls to 0")
    weight_decay: float = Field(default=0.0, ge=0)
    patches_per_epoch: int = Field(default=0, ge=0, description="0: two for each mitosis")
    patch_px: int = Field(default=PATCH_PX, gt=0, description="side of a training patch")
    warm_up_patches: int = Field(default=1920, ge=0, description="small patches before the first epoch; 0: none")
    warm_up_px: int = Field(default=132, gt=0, description="side of a small patch")
    mpp: MppOfModel = Field(default=0.25, description="um per pixel that the network sees")
    seed: int = Field(default=0, ge=0)
    precision: Precision = Field(default="auto", description="auto: bfloat16 where the hardware has it")
    sparse: bool = Field(default=True, description="back-propagate through the cell of the maximum only; same result")
    ema_decay: float = Field(default=0.0, ge=0, lt=1, description="of the weights' moving average, per step; 0: off")
    stain: StainScope = Field(default="field", description="Macenko per field or case; none: jittered, not normalised")
    flatten: Share = Field(
        default=0.5, description="draw laboratories, and cases, by their mitoses (0) to all alike (1)"
    )
    quiet_share: Share = Field(default=0.0, description="of the patches without a mitosis: of tissue without mitoses")
    hard_negative_share: Share = Field(
        default=0.0, description="of the patches without a mitosis, or the quiet ones: where it erred"
    )
    augmentation: Augmentation = Augmentation()
    validate_every: int = Field(default=1, gt=0, description="epochs from one validation to the next")
    select: Selection = Field(default="best_f1", description="what makes an epoch the best, on validation cases")
    cross_validation: CrossValidation = Field(default=CrossValidation(), repr=False)  # no part of a run's identity

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.architecture.batch_norm != "folded":
            raise ValueError("training starts from weights with batch-norm folded in; use batch_norm 'folded'")
        if self.epochs % self.cycles:
            raise ValueError(f"{self.epochs} epochs cannot be divided into {self.cycles} cycles")
        if min(self.patch_px, self.warm_up_px) <= 2 * self.augmentation.margin_px:
            raise ValueError(f"patches of {self.patch_px} or {self.warm_up_px} px cannot hold a mitosis")
        return self


def read_recipe(
    path: Path | None = None, changes: Sequence[str] = (), defaults: Mapping[str, Any] | None = None
) -> TrainingSettings:
    """Read a recipe file, if there is one, and change single settings, each given as KEY=VALUE.

    `defaults`: what a command has other than the recipe's own defaults, where neither file nor changes say it.
    Raises FileMissing; ParameterInvalid, which names the key and, where the file is at fault, its line.
    """
    text = _read(path) if path else ""
    try:
        content = {**(defaults or {}), **tomllib.loads(text)}
    except tomllib.TOMLDecodeError as error:
        raise ParameterInvalid(f"{path} is no TOML: {error}") from error
    changed = [_change(content, change) for change in changes]
    try:
        return TrainingSettings.model_validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(key) for key in first["loc"]]
        by_hand = any(keys[: len(own)] == own for own in changed)
        place = "" if path is None or by_hand else f"{path}{_line(text, keys)}: "
        raise ParameterInvalid(place + _complaint(keys, first["type"], first["msg"], first["input"])) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FileMissing(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ParameterInvalid(f"{path} is no TOML: {error}") from error


def _change(content: dict[str, Any], change: str) -> list[str]:
    """Set one KEY=VALUE in a recipe's content, and give the key's parts. A bare word is a string."""
    key, equals, value = change.partition("=")
    if not equals:
        raise ParameterInvalid(f"{change!r} is not KEY=VALUE, as in epochs=10 or augmentation.blur=0.2")
    *tables, name = keys = [part.strip() for part in key.split(".")]
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise ParameterInvalid(f"there is no key {key}: {table} is a value, not a table")
    try:
        content[name] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        content[name] = value.strip()
    return keys


def _line(text: str, keys: list[str]) -> str:
    """Say in which line of a TOML text a key is set, or the table or array that it is in; nothing if in none."""
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+([^]]+)\]", line):
            table = _parts(header[1])
            found = table == keys
        elif entry := re.match(r"\s*([^#=]+)=", line):
            own = [*table, *_parts(entry[1])]
            found = own == keys[: len(own)]
        else:
            continue
        if found:
            return f", line {number}"
    return ""


def _parts(key: str) -> list[str]:
    return [part.strip(" \t\"'") for part in key.split(".")]


def _complaint(keys: Sequence[str], kind: str, message: str, value: object) -> str:
    key = ".".join(keys)
    if kind == "extra_forbidden":
        known = {each.split(".")[-1]: each for each in _keys(TrainingSettings())}
        near = difflib.get_close_matches(keys[-1], known, 1, cutoff=0.75)
        return f"there is no key {key}; " + (f"did you mean {known[near[0]]}?" if near else "see --print-recipe")
    if kind == "value_error":  # of several settings together, which it names
        return message.removeprefix("Value error, ")
    return f"{key} is {json.dumps(value, default=str)}; {message.replace('Input should', 'it should')}"


def _keys(table: BaseModel, before: str = "") -> Iterator[str]:
    """Give the keys of all settings and tables, those in tables with a dot."""
    for name, value in table:
        yield before + name
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{before}{name}.")


def recipe_text(settings: TrainingSettings) -> str:
    """Write a recipe as TOML: complete, with the meaning of each key as a comment."""
    tables = [(name, value) for name, value in settings if isinstance(value, BaseModel)]
    parts = [HEADER, *_entries(settings)]
    for name, table in tables:
        meaning = (type(table).__doc__ or "").splitlines()[0]
        parts += ["", f"# {meaning}", f"[{name}]", *_entries(table)]
    return "\n".join(parts) + "\n"


def _entries(table: BaseModel) -> Iterator[str]:
    """Give the lines of a table's own keys; numbers, strings, booleans and arrays are written in TOML as in JSON."""
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if not isinstance(value, BaseModel):
            entry = f"{name} = {json.dumps(value)}"
            yield f"{entry:<{COMMENT_COLUMN}}# {field.description}" if field.description else entry
