"""Two people read one analysis over HTTP: who sees what, what is merged, and what is sent out."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from httpx import Client, Response
from sqlalchemy import select

from service.api import analyses, layers, results, review
from service.api.state import State
from service.intake.sandbox import Sandbox
from service.store import keys
from service.store.database import open_database, outbox, reading
from service.store.settings import load_settings
from service.store.summaries import fill
from service.store.work_list import find_page
from service.worker.broker import Broker
from tests.api.small_app import app_of, client_of
from tests.store.test_results import Stored

ANNA, BORIS, CLARA = "Meyer, Anna", "Ivanov, Boris", "Weiß, Käthe"
REJECT, ACCEPT = {"action": "reject", "id": 1, "reason": "Apoptose"}, {"action": "accept", "id": 1}
ADD = {"action": "add", "x": 30.0, "y": 40.0}


class Laboratory:
    """A gateway in this process with three figures to read, and a key for each person."""

    def __init__(self, stack: ExitStack, folder: Path, mode: str, database: str | None = None) -> None:
        self.stored, self.stack, self.mode = Stored(folder, database), stack, mode
        engine = self.stored.engine
        self.secrets = {name: keys.create(engine, "person", "lab", ("read", "review"))[1] for name in (ANNA, BORIS, "")}
        self.client = self.serve(mode)
        self.id = self.stored.succeeded().analysis_id

    def serve(self, mode: str) -> Client:
        settings = load_settings(data_dir=self.stored.folder, second_reading=mode)
        engine = open_database(self.stored.engine.url)
        self.stack.callback(engine.dispose)
        sandbox = self.stack.enter_context(Sandbox())
        state = State(settings, engine, self.stored.storage, self.stored.analyses, Broker(settings), sandbox)
        return self.stack.enter_context(client_of(app_of(state, analyses, results, layers, review)))

    def again(self) -> str:
        self.id = self.stored.succeeded().analysis_id
        fill(self.stored.engine, self.stored.storage)
        return self.id

    def ask(self, name: str, method: str, path: str, key: str | None = None, **more: Any) -> Response:
        secret = self.secrets.get(name if key is None else key) or self.secrets[""]
        headers = {"Authorization": f"Bearer {secret}", **more.pop("headers", {})}
        return self.client.request(method, f"/v1/analyses/{self.id}/{path}", headers=headers, **more)

    def look(self, name: str, **query: Any) -> dict[str, Any]:
        answer = self.ask(name, "GET", "detections", params={"reviewer": name, **query} if name else query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert answer.headers["etag"] == f'"{found["revision"]}"'
        return found

    def change(self, name: str, revision: int, *changes: dict[str, Any], key: str | None = None) -> Response:
        body = {"reviewer": name, "changes": changes}
        return self.ask(name, "PATCH", "detections", key, json=body, headers={"If-Match": f'"{revision}"'})

    def sign(self, name: str, revision: int) -> Response:
        return self.ask(name, "POST", "signature", json={"reviewer": name}, headers={"If-Match": f'"{revision}"'})

    def sent(self) -> list[int]:
        with reading(self.stored.engine) as connection:
            mine = select(outbox.c.revision).where(outbox.c.analysis_id == self.id).order_by(outbox.c.id)
            return [revision for revision in connection.execute(mine).scalars() if revision]

    def line(self, mode: str | None = None, **query: Any) -> dict[str, Any] | None:
        """What the work list says of the analysis, also where the laboratory has another mode; None: not listed."""
        if mode is not None:
            self.client = self.serve(mode)
        answer = self.client.get("/v1/analyses", params=query, headers={"Authorization": f"Bearer {self.secrets['']}"})
        return next((each["summary"] for each in answer.json()["analyses"] if each["id"] == self.id), None)

    def is_signed(self) -> bool | None:
        return bool(find_page(self.stored.analyses.engine, "lab", signed=True).analyses)

    def decisions(self, name: str, **query: Any) -> dict[int, str | None]:
        return {each["id"]: each["decision"] for each in self.look(name, **query)["detections"]}


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Laboratory]]:
    known: dict[str, Laboratory] = {}

    def of(mode: str) -> Laboratory:
        if mode not in known:
            known[mode] = Laboratory(stack, tmp_path_factory.mktemp(mode), mode)
        known[mode].again()
        return known[mode]

    with ExitStack() as stack:
        yield of
        for each in known.values():
            each.stored.engine.dispose()


def refused(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_blinded_readers_see_their_own_and_are_never_in_each_others_way(
    laboratory: Callable[[str], Laboratory],
) -> None:
    lab = laboratory("blinded")
    assert lab.change(ANNA, 0, REJECT, ADD).status_code == 200
    assert lab.look(BORIS)["revision"] == 0
    assert lab.change(BORIS, 0, ACCEPT).status_code == 200
    assert lab.change(ANNA, 2, {"action": "note", "id": 2, "reason": "dark"}).status_code == 200  # no conflict
    assert lab.change(ANNA, 2, REJECT).json()["code"] == "revision-conflict"  # with herself
    assert lab.decisions(ANNA) == {1: "rejected", 2: None, 3: None, 4: "accepted"}
    assert lab.decisions(BORIS) == {1: "accepted", 2: None, 3: None}
    assert lab.decisions("") == lab.decisions(CLARA) == {1: None, 2: None, 3: None}
    assert [lab.look(name)["second_reading"]["reading"] for name in (ANNA, BORIS, CLARA)] == ["first", "second", None]
    assert lab.look(ANNA)["second_reading"] == {
        "reading": "first",
        "signed": [],
        "withheld": True,
        "agreement": None,
        "figures": None,
        "disagreements": None,
    }
    assert refused(lab.change(CLARA, 0, REJECT)) == (409, "reading-taken")
    for asked in ("first", "consensus"):
        answer = lab.ask(BORIS, "GET", "detections", params={"reviewer": BORIS, "reading": asked})
        assert refused(answer) == ((403, "reading-blinded") if asked == "first" else (404, "not-found"))
    answer = lab.ask(BORIS, "GET", "detections", params={"reviewer": ANNA})  # with a key that is not hers
    assert refused(answer) == (409, "reading-taken")
    assert refused(lab.change(ANNA, 0, REJECT, key=BORIS)) == (409, "reading-taken")


def test_nothing_else_tells_a_blinded_reader_of_the_other(laboratory: Callable[[str], Laboratory]) -> None:
    lab = laboratory("blinded")
    machine = lab.ask("", "GET", "result").content
    density = lab.ask("", "GET", "layers/density.png").content
    lab.change(ANNA, 0, REJECT, {"action": "reject", "id": 2})
    lab.sign(ANNA, 2)
    assert lab.ask(BORIS, "GET", "layers/density.png").content == density
    assert lab.ask(BORIS, "GET", "result").content == machine
    assert len(lab.ask(BORIS, "GET", "result", params={"format": "csv"}).text.splitlines()) == 4
    for name, seen in ((ANNA, 3), (BORIS, 0), ("", 0)):
        asked = {"reviewer": name} if name else {}
        assert len(lab.ask(name, "GET", "review", params=asked).json()["entries"]) == seen
    place = {name: lab.look("")["detections"][0][name] for name in ("x", "y")}
    for name, count in ((ANNA, 0), (BORIS, 2)):
        for path, more in (("hotspot", {}), ("field", {"diameter_um": 1423})):
            assert lab.ask(name, "GET", path, params=place | more | {"reviewer": name}).json()["count"] == count
    line = lab.line()
    assert line
    assert (line["status"], line["reviewer"], line["total"], line["undecided"]) == ("preliminary", None, 3, 3)
    assert line["signed_readings"] == ["first"]
    assert (lab.sent(), lab.is_signed()) == ([], False)


def test_what_both_signed_becomes_a_consensus_and_only_that_is_sent(laboratory: Callable[[str], Laboratory]) -> None:
    lab = laboratory("blinded")
    lab.change(ANNA, 0, REJECT, ADD, {"action": "reject", "id": 3})
    lab.change(BORIS, 0, ACCEPT, {"action": "reject", "id": 3, "reason": "Pyknose"}, {"action": "accept", "id": 2})
    assert lab.sign(ANNA, 3).json()["second_reading"]["signed"] == ["first"]
    shown = lab.sign(BORIS, 6).json()
    assert (shown["revision"], shown["status"], shown["signed"]) == (8, "preliminary", None)
    told = shown["second_reading"]
    assert (told["reading"], told["signed"], told["disagreements"]) == ("consensus", ["first", "second"], [1, 4])
    agreement = told["agreement"]
    table = [agreement[name] for name in ("both", "first_only", "second_only", "neither")]
    assert table == [1, 1, 1, 1]
    assert (agreement["kappa"], agreement["first"]["reviewer"], agreement["second"]["total"]) == (0.0, ANNA, 2)
    assert told["figures"][0]["first"] == {
        "reviewer": ANNA,
        "counted": False,
        "decision": "rejected",
        "reason": "Apoptose",
        "note": None,
    }
    assert told["figures"][3]["second"]["counted"] is False
    assert lab.decisions("") == {1: None, 2: "accepted", 3: "rejected", 4: None}
    assert lab.decisions("", reading="first") == {1: "rejected", 2: None, 3: "rejected", 4: "accepted"}

    assert refused(lab.sign(CLARA, 8)) == (409, "disagreements-open")
    assert lab.change(CLARA, 8, REJECT, {"action": "clear", "id": 4}).status_code == 200
    assert lab.decisions("")[4] is None  # what a reader proposed stays until it is decided
    assert refused(lab.sign(CLARA, 10)) == (409, "disagreements-open")
    assert refused(lab.change(ANNA, 3, ACCEPT)) == (412, "revision-conflict")  # her own reading is closed
    assert lab.change(ANNA, 10, {"action": "accept", "id": 4}).status_code == 200
    assert lab.sent() == []
    final = lab.sign(CLARA, 11).json()
    assert (final["status"], final["signed"]["reviewer"], final["counts"]["total"]) == ("final", CLARA, 2)
    assert (lab.sent(), lab.is_signed()) == ([12], True)
    rows = lab.ask("", "GET", "result", params={"format": "csv"}).text.splitlines()
    assert [row.split(",")[0] for row in rows] == ["id", "2", "4"]
    report = lab.ask("", "GET", "result").json()
    assert report["review"]["second_reading"]["agreement"] == agreement
    assert [each["reading"] for each in lab.ask("", "GET", "review").json()["entries"]] == [
        *["first"] * 3,
        *["second"] * 3,
        *["first", "second"],
        *["consensus"] * 4,
    ]
    assert lab.change(BORIS, 12, {"action": "accept", "id": 1}).status_code == 200
    assert lab.sign(BORIS, 13).json()["status"] == "amended"
    assert lab.sent() == [12, 14]


def test_the_list_says_how_many_of_the_readers_have_signed_and_is_filtered_by_it(
    laboratory: Callable[[str], Laboratory],
) -> None:
    lab = laboratory("blinded")

    def listed() -> tuple[list[str] | None, list[int]]:
        line = lab.line() or {}
        return line.get("signed_readings"), [count for count in range(4) if lab.line(signed_readings=count)]

    assert listed() == ([], [0])
    lab.change(ANNA, 0, REJECT)
    lab.sign(ANNA, 1)
    assert listed() == (["first"], [1])
    lab.change(ANNA, 2, {"action": "note", "id": 2, "reason": "dark"})
    assert listed() == ([], [0])
    lab.sign(ANNA, 3)
    lab.change(BORIS, 0, REJECT)
    lab.sign(BORIS, 5)
    assert listed() == (["first", "second"], [2])
    assert lab.line(signed=False)
    lab.sign(CLARA, 6)
    assert listed() == (["first", "second", "consensus"], [3])


@pytest.mark.parametrize(("before", "after"), [("off", "blinded"), ("open", "blinded"), ("blinded", "open")])
def test_a_line_made_before_the_laboratory_chose_otherwise_says_what_may_be_seen_now(
    laboratory: Callable[[str], Laboratory], before: str, after: str
) -> None:
    lab = laboratory(before)
    client = lab.client
    try:
        lab.change(ANNA, 0, REJECT)
        other = lab.line(after)
        assert other
        seen = (None, 3, 3, []) if after == "blinded" else (ANNA, 2, 2, [])
        assert (other["reviewer"], other["total"], other["undecided"], other["signed_readings"]) == seen
    finally:
        lab.client = client


def test_where_reading_is_open_the_only_reader_is_sent_until_another_begins(
    laboratory: Callable[[str], Laboratory],
) -> None:
    lab = laboratory("open")
    lab.change(ANNA, 0, REJECT)
    assert lab.sign(ANNA, 1).json()["status"] == "final"
    assert lab.sent() == [2]
    assert lab.look("")["signed"]["reviewer"] == ANNA
    assert lab.change(BORIS, 0, ACCEPT).status_code == 200
    assert lab.decisions(BORIS, reading="first")[1] == "rejected"
    assert len(lab.ask(BORIS, "GET", "review").json()["entries"]) == 3
    lab.change(ANNA, 2, ACCEPT)
    lab.sign(ANNA, 4)
    both = lab.sign(BORIS, 3).json()
    assert (lab.sent(), both["status"], both["signed"]["revision"]) == ([2], "final", 2)  # still what was sent
    assert len(lab.ask("", "GET", "result", params={"format": "csv"}).text.splitlines()) == 3
    assert both["second_reading"]["disagreements"] == []
    assert lab.sign(BORIS, both["revision"]).json()["status"] == "amended"
    assert lab.sent() == [2, 7]


def test_one_reader_hears_nothing_of_it(laboratory: Callable[[str], Laboratory]) -> None:
    lab = laboratory("off")
    assert lab.change(ANNA, 0, REJECT).status_code == 200
    assert (lab.line() or {"signed_readings": 0})["signed_readings"] is None
    assert refused(lab.change(BORIS, 0, ACCEPT)) == (412, "revision-conflict")
    assert lab.change(BORIS, 1, ACCEPT).status_code == 200
    assert "second_reading" not in lab.look(BORIS)
    assert "proposed" not in lab.look(BORIS)["detections"][0]
    assert lab.decisions(ANNA) == lab.decisions("", reading="first")
    assert refused(lab.ask("", "GET", "detections", params={"reading": "second"})) == (404, "not-found")
    assert lab.sign(CLARA, 2).json()["status"] == "final"
    assert lab.sent() == [3]


def test_what_two_have_begun_goes_on_where_the_laboratory_stops_asking_for_it(
    laboratory: Callable[[str], Laboratory],
) -> None:
    lab = laboratory("blinded")
    lab.change(ANNA, 0, REJECT)
    lab.change(BORIS, 0, ACCEPT)
    blinded, lab.client = lab.client, lab.serve("off")
    try:
        assert lab.decisions(BORIS) == {1: "accepted", 2: None, 3: None}
        lab.sign(ANNA, 1)
        assert lab.sent() == []
        assert lab.sign(BORIS, 2).json()["second_reading"]["disagreements"] == [1]
        assert lab.change(CLARA, 4, ACCEPT).status_code == 200
        assert lab.sign(CLARA, 5).json()["status"] == "final"
        assert lab.sent() == [6]
    finally:
        lab.client = blinded
