"""The analysis beside what a user would pick instead: the same network on the same slides, whole processes, in turn.

    python -m tests.benchmarks.bench_peers [--environments FOLDER] [--rounds N] [--fields N ...] [--peers NAME ...]

Each peer is installed in an environment of its own below the folder (kept for the next run; else a temporary one), with
the PyTorch that is installed here, whose build pip must be able to find again. One that cannot be installed or run is a
line with the reason. Slides say the model's own resolution, so that nobody resamples, and peers are given the slide's
stain matrix, which only the service estimates for itself. Prints a table for people and, last, one JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from service.model_card import ModelCard
from service.plan import Plan
from service.sample import draw_sample_slide
from service.slide import open_slide
from service.torch_backend import PatchNetwork
from service.weights import Model, load_model
from tests.benchmarks.bench_analysis import alike
from tests.benchmarks.benchmark_slides import MITOS14, mitos14_mosaic
from tests.benchmarks.measured import Failed, measure
from tests.benchmarks.peers.job import Job
from tests.benchmarks.printed import machine, table

OURS = "this service"
LOOP = "OpenSlide and OpenVINO, a loop"
FIELDS = (1, 7, 29)  # 2, 17 and 72 megapixels
SAME_PX = 30.0  # between two detections of one mitosis
INSTALL_S = RUN_S = 600.0
PEERS = Path(__file__).parent / "peers"
COLUMNS = ("slide", "", "s (of ours)", "CPU s (of ours)", "peak MiB", "detections", "as ours", "note")
EMPTY = dict.fromkeys(COLUMNS, "")


@dataclass(frozen=True)
class Peer:
    """A toolkit, and the module that runs the network in it, beside which lies what else is to be installed."""

    title: str
    package: str  # pinned
    module: str
    within_limits: bool = True  # whether the package's own limits allow our PyTorch; else they are not looked at

    @property
    def name(self) -> str:
        return f"{self.title} {self.package.partition('==')[2]}"

    def install(self, folder: Path) -> Path:
        """Make its environment, unless it is there; gives its Python. Raises Failed."""
        environment, requirements = folder / self.module, PEERS / f"{self.module}.txt"
        installed, python = environment / "installed", environment / "bin/python"
        constraint = f"torch=={version('torch')}\n"
        wanted = constraint + self.package + "\n" + requirements.read_text()
        if not installed.exists() or installed.read_text() != wanted:
            constraints = folder / "constraints.txt"
            constraints.write_text(constraint)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
            _run([sys.executable, "-m", "venv", "--clear", str(environment)])
            _run([*pip, "--requirement", str(requirements)])
            _run([*pip, self.package] if self.within_limits else [*pip, "--no-deps", self.package])
            installed.write_text(wanted)
        return python


TOOLKITS = (
    Peer("MONAI", "monai==1.6.1", "monai_inferer"),
    Peer("TIAToolbox", "tiatoolbox==2.1.3", "tiatoolbox_segmentor", within_limits=False),
    Peer("WSInfer", "wsinfer==0.6.1", "wsinfer_patches"),
    Peer("LazySlide", "lazyslide==0.13.0", "lazyslide_features"),
)


def _run(command: list[str]) -> None:
    try:
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"not installed within {INSTALL_S:.0f} s") from error
    if outcome.returncode:
        errors = [line for line in outcome.stderr.splitlines() if line.startswith("ERROR")]
        raise Failed((errors or outcome.stderr.strip().splitlines() or ["not installed"])[0])


def commands(folder: Path, environments: Path, names: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Install the peers: what runs each on a job, and why others do not run."""
    reasons: dict[str, str] = {}
    found: dict[str, list[str]] = {OURS: [], LOOP: [sys.executable, "-m", "tests.benchmarks.openvino_loop"]}
    for peer in TOOLKITS:
        if not names or peer.module in names:
            try:
                found[peer.name] = [str(peer.install(environments)), "-m", f"tests.benchmarks.peers.{peer.module}"]
            except Failed as error:
                reasons[peer.name] = str(error)
    return found, reasons


class Scripted(torch.nn.Module):
    """The network as toolkits call one: pixels (B, 3, H, W) of 0 to 255 -> (B, 1, h, w)."""

    def __init__(self, model: Model, transform: torch.Tensor) -> None:
        super().__init__()
        self.network = PatchNetwork(model)
        self.register_buffer("transform", transform)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        cells: torch.Tensor = self.network(pixels.permute(0, 2, 3, 1), self.transform)
        return cells[:, None]


def make_job(slide_path: Path, model: Model, folder: Path) -> tuple[Job, float]:
    """Write what a peer needs to compute a slide; gives its tissue in megapixels, too."""
    card = model.card
    with open_slide(slide_path) as slide:
        plan = Plan.of(slide, card)
    transform = plan.stain.transforms[int(np.argmax(plan.sections.areas_mm2))]
    scripted = Scripted(model, torch.from_numpy(transform)).eval().requires_grad_(False)
    torch.jit.trace(scripted, torch.zeros(1, 3, 512, 512)).save(folder / "network.pt")
    graph = onnx.load(folder / "model.onnx")
    for value in graph.graph.initializer:
        if value.name == "transform":  # of models with a stain reference
            value.CopyFrom(onnx.numpy_helper.from_array(transform, value.name))
    onnx.save(graph, folder / "network.onnx")
    job = Job(
        slide=str(slide_path),
        onnx=str(folder / "network.onnx"),
        torchscript=str(folder / "network.pt"),
        out=str(folder / "found.json"),
        mpp=card.mpp,
        stride_px=card.architecture.stride_px,
        offset_px=card.offset_px,
        threshold=card.threshold,
        calibration=card.calibration.model_dump() if card.calibration else {},
    )
    return job, plan.examined_mm2 * 1e6 / card.mpp**2 / 1e6


def bench_slide(job: Job, folder: Path, contestants: dict[str, list[str]], rounds: int) -> dict[str, Any]:
    """Run all on one slide, in turn, round by round; a peer that fails once is not asked again. Raises Failed."""
    job_file, out = folder / "job.json", Path(job.out)
    job_file.write_text(json.dumps(asdict(job)))
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    found: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for _ in range(rounds):
        for name, command in contestants.items():
            out.unlink(missing_ok=True)
            if name in failed:
                continue
            try:
                measured[name].append(measure([*command, str(job_file)] if command else analysis_of(job), RUN_S))
                found[name] = json.loads(out.read_text())
                print(f"{name}: {measured[name][-1]['wall_s']:.1f} s", file=sys.stderr)
            except Failed as error:
                if name == OURS:
                    raise
                failed[name] = str(error)
    figures: dict[str, Any] = {
        name: summary(measured[name], measured[OURS]) | compared(found[name], found[OURS])
        for name in contestants
        if name not in failed
    }
    return figures | {name: {"failed": reason} for name, reason in failed.items()}


def analysis_of(job: Job) -> list[str]:
    return [sys.executable, "-m", "service", "analyze", job.slide, "--out", job.out]


def compared(own: dict[str, Any], ours: dict[str, Any]) -> dict[str, int]:
    """Count what was found, and the detections that the service has, too; a classifier of patches has none."""
    if "patches" in own:
        return {"patches": own["patches"]}
    places, others = (
        np.array([(each["x"], each["y"]) for each in of["detections"]]).reshape(-1, 2) for of in (own, ours)
    )
    return {"detections": len(places), "same": alike(places, others, SAME_PX)}


def summary(own: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, float]:
    """Give medians, and medians of the ratios within a round to what the service took."""
    medians = {key: statistics.median(each[key] for each in own) for key in own[0]}
    ratios = {
        f"{key}_ratio": statistics.median(each[key] / beside[key] for each, beside in zip(own, ours, strict=True))
        for key in ("wall_s", "cpu_s")
    }
    return medians | ratios


def rows(slide: str, figures: dict[str, Any]) -> list[dict[str, str]]:
    """Write a slide's lines of the table."""
    lines = []
    for name, of in figures.items():
        if "failed" in of:
            lines.append(EMPTY | {"slide": slide, "": name, "note": of["failed"]})
            continue
        wall, cpu = (f"{of[key]:.1f} ({of[f'{key}_ratio']:.2f})" for key in ("wall_s", "cpu_s"))
        found = [str(of.get(key, "")) for key in ("detections", "same")]
        note = f"{of['patches']} patches, no places" if "patches" in of else ""
        line = (slide, name, wall, cpu, f"{of['peak_mib']:.0f}", *found, note)
        lines.append(dict(zip(COLUMNS, line, strict=True)))
    return lines


def slides(folder: Path, fields: Sequence[int], card: ModelCard) -> dict[str, Path]:
    """Make the slides: mosaics of real fields, or the drawn sample where those are not at hand."""
    if not MITOS14.is_dir():
        return {"the drawn sample": draw_sample_slide(folder / "sample.tif").path}
    return {
        f"{count} field{'s'[: count > 1]}": mitos14_mosaic(folder / f"{count}.tif", count, card.mpp).path
        for count in fields
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--environments", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fields", type=int, nargs="*", default=FIELDS)
    parser.add_argument("--peers", nargs="*", default=[], help="modules of tests/benchmarks/peers; default all")
    asked = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), load_model()
        environments = asked.environments or folder / "environments"
        environments.mkdir(parents=True, exist_ok=True)
        contestants, reasons = commands(folder, environments.resolve(), asked.peers)
        _run([sys.executable, "-m", "service", "export-onnx", model.card.id, "--out", str(folder / "model.onnx")])
        outcome: dict[str, Any] = {}
        lines: list[dict[str, str]] = []
        for what, path in slides(folder, asked.fields, model.card).items():
            job, tissue_mp = make_job(path, model, folder)
            title = f"{what}, {tissue_mp:.0f} MP of tissue"
            if not outcome:
                bench_slide(job, folder, contestants, 1)  # the first run of each does not count: it compiles
            outcome[title] = bench_slide(job, folder, contestants, asked.rounds)
            lines += rows(title, outcome[title])
        lines += [EMPTY | {"": peer, "note": f"not installed: {reason}"} for peer, reason in reasons.items()]
    table(f"Beside others, medians of {asked.rounds} rounds", lines)
    print(json.dumps(outcome | {"not_installed": reasons}))


if __name__ == "__main__":
    main()
