"""Orders, results and reviews of before the patient gate, on SQLite and on PostgreSQL: kept, found, and moved back."""

import json

from sqlalchemy import Engine, MetaData, create_engine, select, text

from service.order import ReceivedOrder
from service.store import holds, orders
from service.store.database import analyses, open_database, reading, review_entries, writing
from service.store.database import orders as table
from service.store.orders import Request, Sent, take
from service.store.schema_version import downgrade, revision

OLD_ORDER = {"patient_id": "1001", "patient_id_issuer": "KIS", "placer_order_number": "950", "container_id": "S-1"}
NOW = 1.7e9


def old_database(url: str) -> Engine:
    """A database of revision 0002 with an order, its analysis, a signature and a result on its way."""
    engine = open_database(url)
    downgrade(engine, "0002")
    known = MetaData()
    known.reflect(engine)
    mine = {"tenant": "default", "created_at": NOW}
    slide = {"slide_id": "s", "slide_name": "S-1.svs", "slide_identifier": "S-1", "request": {"order": OLD_ORDER}}
    facts = {"id": "a", "status": "succeeded", "model": "m", "model_sha256": "x", "priority": "routine"}
    order = {"id": "o", "number": "950", "identifier": "S-1", "order": OLD_ORDER, "source": "hl7", "status": "matched"}
    order |= {"message": "LIS^LAB M1", "sent_at": 0.0, "updated_at": NOW}
    signature = {"analysis_id": "a", "revision": 1, "action": "sign", "reviewer": "W", "at": NOW}
    sent = {"analysis_id": "a", "channel": "hl7", "revision": 1, "status": "delivered", "attempts": 1, "next_at": NOW}
    with engine.begin() as connection:
        connection.execute(known.tables["analyses"].insert().values(**mine, **slide, **facts))
        connection.execute(known.tables["orders"].insert().values(**mine, **order))
        connection.execute(known.tables["review_entries"].insert().values(**signature))
        connection.execute(known.tables["outbox"].insert().values(**mine, **sent))
    engine.dispose()
    return open_database(url)


def request(patient: str, control: str = "place", assigner: str = "") -> Request:
    order = ReceivedOrder.model_validate(OLD_ORDER | {"patient_id": patient, "sender": "LIS^LAB"})
    return Request(control, "950", (order,), assigner)  # type: ignore[arg-type]


def test_old_rows_are_kept_and_guarded(url: str) -> None:
    engine = old_database(url)
    with writing(engine) as connection:
        row = connection.execute(select(analyses)).one()
        assert (row.order_id, row.moves, row.held, row.patient_id) == ("o", 0, None, "1001")
        assert take(connection, Sent("default", "hl7", "OTHER", "M2"), request("2002", "cancel")) == "unknown"
        assert take(connection, Sent("default", "hl7", "LIS^LAB", "M3"), request("1001", "cancel")) == "too-late"
        assert take(connection, Sent("default", "hl7", "OTHER", "M4"), request("2002")) == "placed"
    with reading(engine) as connection:
        row = connection.execute(select(analyses)).one()
        assert row.request["order"]["patient_id"] == "1001"
        assert [each["code"] for each in row.held["reasons"]] == ["patient-conflict"]
        assert len(orders.rows_of(connection, Sent("default", "hl7", "LIS^LAB"), request("1001"))) == 1
    assert [each.id for each in holds.held_results(engine)] == ["a"]
    engine.dispose()


def test_back_to_the_version_before(url: str) -> None:
    engine = old_database(url)
    with writing(engine) as connection:
        void = {"analysis_id": "a", "revision": 2, "action": "void", "reviewer": "W", "at": NOW}
        connection.execute(review_entries.insert().values(**void))
        take(connection, Sent("default", "hl7", "LIS^LAB", "M2", processing_id="T"), request("1001"))
        take(connection, Sent("default", "hl7", "LIS^LAB", "M3"), request("1001", assigner="A"))
        training = ReceivedOrder.model_validate(OLD_ORDER | {"processing_id": "T", "container_id": "S-2"})
        take(connection, Sent("default", "hl7", "X", "M4", processing_id="T"), Request("place", "951", (training,)))
        take(connection, Sent("default", "fhir", "X"), Request("draft", "952", (training,)))
    downgrade(engine, "0004")
    with engine.connect() as connection:
        found = connection.execute(text("SELECT number, status FROM orders WHERE number > '950'")).all()
        assert connection.execute(text("SELECT count(*) FROM review_entries")).scalar_one() == 0
        orders_then = connection.execute(select(table.c.order)).scalars().all()
    assert dict(map(tuple, found)) == {"951": "waiting", "952": "cancelled"}  # type: ignore[arg-type]
    assert all("processing_id" not in each for each in orders_then)
    downgrade(engine, "0002")
    assert revision(engine) == "0002"
    plain = create_engine(url)
    with plain.connect() as connection:
        [number] = connection.execute(text("SELECT number FROM orders WHERE number = '950'")).scalars()
        told = connection.execute(text("SELECT request FROM analyses")).scalar_one()
    assert number == "950"
    assert set((told if isinstance(told, dict) else json.loads(told))["order"]) <= set(ReceivedOrder.model_fields) - {
        "sender",
        "hl7",
        "patient_identifiers",
    }
    plain.dispose()
    engine.dispose()
    again = open_database(url)
    with reading(again) as connection:
        assert connection.execute(select(table.c.assigner).where(table.c.number == "950")).scalar_one() == ""
    again.dispose()
