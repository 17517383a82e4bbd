"""A cohort of small slides: one process against two.

    python -m tests.benchmarks.bench_cohort [SLIDES [SIDE_PX]]

By default 40 drawn images of 1000 px. Prints a table for people and, last, one JSON object: seconds of the command,
and the largest memory of any of its processes with a quarter of the slides and with all of them (MB).
"""

import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.benchmarks.measured import measure
from tests.benchmarks.printed import table
from tests.drawn import SECTION_PX, drawn_section

MOST_S = 3600.0


def draw(folder: Path, slides: int, side_px: int) -> None:
    """Cut so many images out of the drawn section."""
    pixels, room = drawn_section()[0], SECTION_PX - side_px
    for number in range(slides):
        x, y = number * 137 % room, number * 211 % room
        Image.fromarray(pixels[y : y + side_px, x : x + side_px]).save(folder / f"{number:04}.png")


def run(slides: list[Path], jobs: int) -> dict[str, float]:
    """Give the seconds of the command, and the most memory (MB) that a process of it has had."""
    with tempfile.TemporaryDirectory() as out:
        (Path(out) / "slides.csv").write_text("path,mpp\n" + "".join(f"{slide},0.25\n" for slide in slides))
        command = [sys.executable, "-m", "service", "analyze", f"{out}/slides.csv", "--out", f"{out}/reports"]
        found = measure([*command, "--table", f"{out}/cohort.csv", "--jobs", str(jobs)], MOST_S)
        return {"seconds": round(found["wall_s"], 2), "mb": round(found["peak_mib"])}


def main() -> None:
    """Draw, run, print."""
    slides, side_px = (int(each) for each in (*sys.argv[1:], *("40", "1000")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), slides, side_px)
        paths = sorted(Path(folder).iterdir())
        quarter_mb = run(paths[: slides // 4], 1)["mb"]
        found = {f"jobs {jobs}": run(paths, jobs) for jobs in (1, 2)}
    ratio = round(found["jobs 1"]["seconds"] / found["jobs 2"]["seconds"], 2)
    rows = [{"": name, "seconds": each["seconds"], "largest process, MB": each["mb"]} for name, each in found.items()]
    table(f"{slides} slides of {side_px} px", rows)
    print(f"two jobs are {ratio:.2f} times as fast as one; a quarter of the slides took {quarter_mb} MB")
    print(json.dumps(found | {"ratio": ratio, "quarter_mb": quarter_mb}))


if __name__ == "__main__":
    main()
