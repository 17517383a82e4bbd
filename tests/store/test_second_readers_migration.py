"""Reviews of before second readers, on SQLite and on PostgreSQL: the first reader's, and moved back."""

from sqlalchemy import Engine, MetaData, create_engine, insert, select, text

from service.agreement import ReadingName
from service.readings import signed_readings
from service.review import Action
from service.store.database import analyses, open_database, reading, review_entries, writing
from service.store.reviews import Reviews
from service.store.schema_version import downgrade


def old_database(url: str) -> Engine:
    """A database of revision 0006 with a review that was signed."""
    engine = open_database(url)
    downgrade(engine, "0006")
    known = MetaData()
    known.reflect(engine)
    slide = {"id": "a", "tenant": "lab", "slide_id": "s", "slide_name": "a.svs", "request": {}, "created_at": 1.0}
    facts = {"status": "succeeded", "model": "m", "model_sha256": "x", "priority": "routine", "moves": 0}
    facts |= {"signed": True}
    about = {"analysis_id": "a", "reviewer": "Meyer, Anna", "at": 1.0}
    rows = [about | {"revision": 1, "action": "reject", "detection_id": 1}]
    rows.append(about | {"revision": 2, "action": "sign", "detection_id": None})
    with engine.begin() as connection:
        connection.execute(known.tables["analyses"].insert().values(**slide, **facts))
        connection.execute(known.tables["review_entries"].insert(), rows)
    engine.dispose()
    return open_database(url)


def test_what_was_decided_is_the_first_readers_and_goes_back(url: str) -> None:
    engine = old_database(url)
    found = Reviews(engine).entries("a")
    assert [(each.action, each.reading, each.withheld, each.reviewer) for each in found] == [
        ("reject", "first", False, "Meyer, Anna"),
        ("sign", "first", False, "Meyer, Anna"),
    ]
    second = {"analysis_id": "a", "reviewer": "B", "at": 2.0, "action": "sign", "reading": "second", "withheld": True}
    with writing(engine) as connection:
        connection.execute(insert(review_entries).values(revision=3, **second))
    downgrade(engine, "0006")
    engine.dispose()
    plain = create_engine(url)
    with plain.connect() as connection:
        assert list(connection.execute(text("SELECT revision FROM review_entries ORDER BY revision")).scalars()) == [
            1,
            2,
        ]
    plain.dispose()
    again = open_database(url)
    with reading(again) as connection:
        assert connection.execute(select(analyses.c.signed)).scalar_one() is True
    again.dispose()


def test_how_many_readings_are_signed_is_known_of_before_the_list_said_it(url: str) -> None:
    engine = open_database(url)
    both = [("first", "sign"), ("second", "sign")]
    reviews: list[list[tuple[ReadingName, Action]]] = [
        [],
        [("first", "reject"), ("first", "sign")],
        [("first", "sign"), ("first", "note"), ("second", "sign"), ("first", "void")],
        [*both, ("consensus", "accept"), ("consensus", "sign")],
        [*both, ("consensus", "sign"), ("first", "void")],
        [*both, ("consensus", "sign"), ("first", "void"), ("consensus", "sign")],
    ]
    values = {"tenant": "lab", "slide_id": "s", "slide_name": "a.svs", "request": {}, "created_at": 1.0}
    values |= {"status": "succeeded", "model": "m", "model_sha256": "x", "priority": "routine", "summary": {"mai": 1}}
    with writing(engine) as connection:
        for number, review in enumerate(reviews):
            connection.execute(insert(analyses).values(id=str(number), **values))
            for revision, (name, action) in enumerate(review, start=1):
                entry = {"analysis_id": str(number), "reviewer": "R", "at": 1.0, "action": action, "reading": name}
                connection.execute(insert(review_entries).values(revision=revision, **entry))
    downgrade(engine, "0007")
    engine.dispose()
    again = open_database(url)
    with reading(again) as connection:
        found = connection.execute(select(analyses.c.signed_readings, analyses.c.summary).order_by(analyses.c.id)).all()
    entries = [Reviews(again).entries(str(number)) for number in range(len(reviews))]
    assert [row.signed_readings for row in found] == [0, 1, 1, 3, 2, 3]
    assert [len(signed_readings(each)) for each in entries] == [0, 1, 1, 3, 2, 3]
    assert [row.summary is None for row in found] == [False, *[True] * 5]  # those are made anew
    again.dispose()
