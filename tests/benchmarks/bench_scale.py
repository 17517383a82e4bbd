"""The job store with 2,000 and with 200,000 analyses: what a request, a second, a round and a start cost with either.

    python -m tests.benchmarks.bench_scale [SQLite] [PostgreSQL]

By default both, PostgreSQL where it is installed. Prints a table for people and, last, one JSON object, in
milliseconds, the best of three.
"""

import json
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, insert

from service.store import outbox, retention
from service.store.analyses import Analyses
from service.store.database import analyses as table
from service.store.database import audit_entries, open_database, reading, slides, tasks, writing
from service.store.database import outbox as outbox_table
from service.store.holds import held_results
from service.store.orders import count_waiting
from service.store.retention import DAY_S, Limits, Rounds
from service.store.settings import load_settings
from service.store.slides import forget_slides, list_slides
from service.store.storage import Storage
from service.store.work_list import find_page
from tests.benchmarks import printed
from tests.benchmarks.measured import seconds
from tests.deployment.stack import postgres

SIZES = (2_000, 200_000)
CHUNK = 10_000
DAYS = 80  # over which they came; nothing is old


def fill(engine: Engine, count: int, now: float) -> None:
    """Write analyses that have ended: a tenth failed, a hundredth held, each told; and a slide for every fourth."""
    for start in range(0, count, CHUNK):
        rows: dict[Any, list[dict[str, Any]]] = {table: [], tasks: [], outbox_table: [], slides: [], audit_entries: []}
        for number in range(start, min(count, start + CHUNK)):
            at, name = now - DAYS * DAY_S * (1 - number / count), str(uuid.uuid4())
            failed = number % 10 == 0
            rows[table].append(
                {
                    "id": name,
                    "tenant": "default",
                    "slide_id": f"s{number // 4}",
                    "slide_name": "s.svs",
                    "model": "m",
                    "status": "failed" if failed else "succeeded",
                    "request": {},
                    "model_sha256": "",
                    "moves": 0,
                    "error": {"code": "slide-damaged"} if failed else None,
                    "held": {"id": name[:12], "reasons": []} if number % 100 == 1 else None,
                    "priority": "routine",
                    "accession_number": f"A{number}",
                    "created_at": at,
                    "finished_at": at,
                    "patient_id": f"P{number // 3}",
                    "name_folded": "s.svs",
                    "accession_folded": f"a{number}",
                    "signed": None if failed else number < count - 50,
                    "summary": None if failed else {"mai": number % 40},
                }
            )
            rows[tasks].append({"id": name, "analysis_id": name, "kind": "whole", "status": "done", "priority": "stat"})
            told = {"tenant": "default", "analysis_id": name, "channel": "hl7", "revision": 0, "status": "delivered"}
            rows[outbox_table].append(told | {"created_at": at, "next_at": at})
            entry = {"number": number + 1, "at": at, "tenant": "", "actor": "", "action": "look", "object": name}
            rows[audit_entries].append(entry | {"detail": {}, "previous": "", "sha256": ""})
            if number % 4 == 0:
                slide = {"id": f"s{number // 4}", "tenant": "default", "sha256": f"{number:064x}", "name": "s.svs"}
                rows[slides].append(slide | {"path": "p", "size": 1.0, "facts": {}, "created_at": at, "used_at": now})
        with writing(engine) as connection:
            for each, values in rows.items():
                connection.execute(insert(each), values)


def questions(engine: Engine, count: int, folder: Path) -> dict[str, Callable[[], object]]:
    """What is asked of the store, by people, by other systems and by itself."""
    known, settings = Analyses(engine), load_settings(data_dir=folder)
    storage, limits = Storage(folder), Limits.of(settings, time.time())
    middle = find_page(engine, "default", limit=500).cursor
    for _ in range(min(200, count // 1000)):
        middle = find_page(engine, "default", limit=500, cursor=middle).cursor

    def statistics() -> None:
        known.statistics()
        count_waiting(engine)
        outbox.statistics(engine, ["hl7"])

    def second() -> None:
        known.running(), known.to_send(), known.sent_and_queued()
        outbox.share_out(engine, ["hl7"], "default")
        outbox.take(engine, "hl7", 10)

    def round_of_retention() -> None:
        rounds = Rounds(engine, settings)
        assert rounds.begin()
        assert not list(retention.forget_results(engine, limits))
        retention.forget_rest(engine, limits.results)
        forget_slides(engine, storage, limits.slides)
        rounds.end()

    def due() -> None:
        with reading(engine) as connection:
            retention.due(connection, limits)

    return {
        "list, first page": lambda: find_page(known.engine, "default"),
        "list, far down": lambda: find_page(known.engine, "default", cursor=middle),
        "list, running": lambda: find_page(known.engine, "default", status="running"),
        "list, failed": lambda: find_page(known.engine, "default", status="failed"),
        "list, held": lambda: find_page(known.engine, "default", held=True),
        "search, accession number": lambda: find_page(known.engine, "default", accession_number=f"A{count // 2}"),
        "search, patient": lambda: find_page(
            known.engine, "default", status="succeeded", patient_id=f"P{count // 6}", held=False
        ),
        "search, beginning": lambda: find_page(engine, "default", search=f"a{count // 2}"),
        "search, beginning of all": lambda: find_page(engine, "default", search="a"),
        "sorted by MAI": lambda: find_page(engine, "default", sort="-mai"),
        "list, to sign": lambda: find_page(known.engine, "default", signed=False),
        "list, of a slide": lambda: find_page(known.engine, "default", slide_id=f"s{count // 8}"),
        "slides without an analysis": lambda: list_slides(engine, "default", analysed=False),
        "all that are held": lambda: held_results(engine),
        "metrics": statistics,
        "a second's sweeps": second,
        "what is old": due,
        "a round of retention": round_of_retention,
        "start": lambda: open_database(engine.url).dispose(),
    }


@contextmanager
def databases() -> Iterator[dict[str, Callable[[str], Any]]]:
    """URLs of new databases by name."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        found: dict[str, Callable[[str], Any]] = {"SQLite": lambda name: f"sqlite:///{folder}/{name}.sqlite3"}
        with suppress(Exception):  # whatever keeps it from starting here
            found["PostgreSQL"] = running.enter_context(postgres()).create
        yield found


def main() -> None:
    """Fill databases and ask them."""
    found: dict[str, dict[str, float]] = {}
    with databases() as urls:
        for name in sys.argv[1:] or urls:
            make = urls[name]
            for count in SIZES:
                folder, engine = Path(tempfile.mkdtemp()), open_database(make(f"n{count}"))
                fill(engine, count, time.time())
                if engine.dialect.name == "postgresql":
                    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                        connection.exec_driver_sql("ANALYZE")  # as its own autovacuum does in a minute
                asked = questions(engine, count, folder)
                found[f"{name} {count:,}"] = {
                    what: round(1000 * min(seconds(each)[0] for _ in range(3)), 2) for what, each in asked.items()
                }
                engine.dispose()
                shutil.rmtree(folder)
    rows = [{"": what} | {name: f"{ms[what]:.1f}" for name, ms in found.items()} for what in next(iter(found.values()))]
    printed.table("Milliseconds by the number of analyses", rows)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
