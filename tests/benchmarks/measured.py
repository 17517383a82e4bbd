"""What a call costs, and a whole process: wall and CPU seconds, and the most memory, of it and all that it started.

The process in between is small, and is there for its size: a process's peak counts that of the one it was forked from.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Failed(Exception):
    """A command that did not do its work: the last line that it wrote to standard error."""


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Give the wall seconds of a call, and the CPU seconds of all threads."""
    started, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - started, time.process_time() - used


def measure(command: list[str], timeout_s: float) -> dict[str, float]:
    """Run a command in the repository's root: `wall_s`, `cpu_s`, and `peak_mib` of its largest process."""
    between = [sys.executable, "-S", "-m", "tests.benchmarks.measured", str(timeout_s), *command]
    outcome = subprocess.run(between, cwd=ROOT, capture_output=True, text=True)
    if outcome.returncode:
        raise Failed((outcome.stderr.strip() or f"exit status {outcome.returncode}").splitlines()[-1])
    found: dict[str, float] = json.loads(outcome.stdout.splitlines()[-1])
    return found


def cpu_s(root: int) -> float:
    """Sum up what a process, and all below it that live, have used of the CPU."""
    below, used = defaultdict[int, list[int]](list), dict[int, float]()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            facts = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(process.name)
        below[int(facts[1])].append(pid)
        used[pid] = (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")
    total, left = 0.0, [root]
    while left:
        pid = left.pop()
        total += used.get(pid, 0.0)
        left += below[pid]
    return total


def main() -> None:
    started = time.perf_counter()
    try:
        status = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, timeout=float(sys.argv[1])).returncode
    except subprocess.TimeoutExpired:
        sys.exit(f"took more than {float(sys.argv[1]):.0f} s")
    taken, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"wall_s": taken, "cpu_s": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024}))
    sys.exit(status)


if __name__ == "__main__":
    main()
