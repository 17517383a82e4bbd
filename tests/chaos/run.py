"""A real service under load and harm; afterwards, whether all that it promises still holds.

    python -m tests.chaos.run [--seconds 600] [--analyses 300] [--seed N] [--on embedded|servers|both] [--workers 2]

In each half minute gateway, worker, broker and database are killed once (SQLite, which has no process, is locked), and
three other harms are done: processes stopped or left a tenth of their time, the database locked, the disk filled, a
broker that forgets, SIGTERM. The same seed does the same harm at the same times; what that hits depends on the machine.
Exit 1: something does not hold.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.checks import Checks
from tests.chaos.harm import Harm
from tests.chaos.installation import SECRET, Installation, Kind
from tests.chaos.load import SLIDES, Load, Outcome, Sample, receiver, samples

SHOWN = 5  # of what a check finds
FEW = 10  # analyses, for which it is not worth while to draw several slides


def run(kind: Kind, folder: Path, known: list[Sample], options: argparse.Namespace) -> bool:
    """Harm one installation, check it, and print both; gives whether all holds."""
    started = time.monotonic()
    told: dict[str, set[tuple[str, str]]] = {}
    folder.mkdir()
    with receiver(told, options.seed) as callback:
        settings = {"callback_hosts": callback.split("/")[2], "callback_secret": SECRET}
        with Installation(kind, folder, options.workers, **settings) as installation:
            amount = {"seconds": options.seconds, "analyses": options.analyses, "seed": options.seed}
            load = Load(installation.url, known, callback, **amount)
            load.outcome.told = told
            harm = Harm(installation, options.seconds, options.seed)
            harming = threading.Thread(target=harm.run)
            harming.start()
            try:
                load.run()
                harming.join()
            finally:
                harm.stop()
                harming.join()
            holds = _check(installation, load.outcome)
            figures = {"on": kind, "seed": options.seed, "seconds": round(time.monotonic() - started)}
            figures |= {"analyses": options.analyses, "harm": dict(sorted(harm.done.items()))}
            figures |= {"starts": installation.launches, "ended": dict(load.outcome.ended)}
            figures |= {"slowest_s": round(load.outcome.slowest_s, 1), "refused": dict(load.outcome.refused)}
            if installation.disk is None:
                figures["left out"] = "fill: no small disk can be mounted here"
    _print(figures, holds)
    return not any(holds.values())


def _check(installation: Installation, outcome: Outcome) -> dict[str, list[str]]:
    checks = Checks(installation, outcome)
    try:
        holds = {name: list(check()) for name, check in checks.running().items()}
        installation.settle()
        installation.service.stop()
        return holds | {name: list(check()) for name, check in checks.stopped().items()}
    finally:
        checks.close()


def _print(figures: dict[str, object], holds: dict[str, list[str]]) -> None:
    console, harm = Console(width=120), figures["harm"]
    assert isinstance(harm, dict)
    done = Table("harm", "times", title=f"{figures['on']}, seed {figures['seed']}: {figures['seconds']} s")
    for name, count in harm.items():
        done.add_row(name, str(count))
    console.print(done)
    checked = Table("what must hold", "does it")
    for name, wrong in holds.items():
        more = [f"... and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        checked.add_row(name, "\n".join([*wrong[:SHOWN], *more]) or "yes", style="red" if wrong else None)
    console.print(checked)
    print(json.dumps(figures))


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--analyses", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--on", choices=("embedded", "servers", "both"), default="both")
    parser.add_argument("--keep", type=Path, help="a folder for logs and data, to look at afterwards")
    options = parser.parse_args(words)
    kinds: list[Kind] = ["embedded", "servers"] if options.on == "both" else [options.on]
    if options.on == "both" and not (shutil.which("postgres") or list(Path("/usr/lib/postgresql").glob("*/bin"))):
        print("PostgreSQL is not installed: only what the service embeds is harmed")
        kinds.remove("servers")
    with tempfile.TemporaryDirectory(prefix="mitosis-chaos-") as name:
        folder = options.keep or Path(name)
        folder.mkdir(exist_ok=True)
        known = samples(folder, slides=1 if options.analyses < FEW else SLIDES)
        hold = [run(kind, folder / kind, known, options) for kind in kinds]
        return 0 if all(hold) else 1


if __name__ == "__main__":
    sys.exit(main())
