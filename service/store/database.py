"""The job store's tables and engine: SQLite by default, PostgreSQL by URL; migrated by alembic when it is opened.

Times are Unix seconds of the process that wrote them, for people and retention; no decision about who runs a job
rests on a clock (see `service.store.analyses`).
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Delete,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Select,
    String,
    Table,
    Text,
    TextClause,
    Update,
    create_engine,
    func,
    make_url,
    select,
    text,
    true,
)
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.errors import RequestInvalid, SettingsInvalid, StoredDamaged
from service.refusals import DatabaseUnavailable
from service.store import sqlite
from service.store.migrations import upgrade
from service.store.settings import NO_PORT

BUSY_S = 5.0  # how long a writer waits for another one's lock
# a server whose machine is gone does not say so: without limits a connection to it waits for a quarter of an hour
LIVENESS = {"connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}  # s
POSTGRESQL = LIVENESS | {
    "tcp_user_timeout": 10_000,  # ms
    "options": f"-c lock_timeout={BUSY_S:g}s -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s",
}
CONNECT: dict[str, Any] = {"sqlite": {"timeout": BUSY_S, "check_same_thread": False}, "postgresql": POSTGRESQL}

NULLABLE_JSON = JSON(none_as_null=True)
FOLDED = String(255).with_variant(String(255, collation="C"), "postgresql")  # `service.store.records.folded`
NOT_ANALYSED = text("analysed = false")
metadata = MetaData()
_writer = threading.Lock()


def _index_of_few(name: str, where: TextClause) -> Index:
    """Make an index by time of those rows alone that a condition holds for."""
    return Index(name, "tenant", "created_at", "id", sqlite_where=where, postgresql_where=where)


slides = Table(
    "slides",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),  # of what was uploaded; names the folder it is stored in
    Column("name", String(255), nullable=False),
    Column("path", Text, nullable=False),  # below the data directory; of a reference, the whole path or URL
    Column("size", Float, nullable=False),  # bytes; Float: PostgreSQL's Integer ends at 2 GiB
    Column("facts", JSON, nullable=False),  # what the reader sees: `Slide.describe`
    Column("created_at", Float, nullable=False),
    Column("used_at", Float, nullable=False),
    Column("analysed", Boolean, nullable=False, server_default=true()),  # whether an analysis was asked for
    Index("slides_by_content", "tenant", "sha256", "name", unique=True),
    Index("slides_by_sha256", "sha256"),
    Index("slides_by_use", "used_at"),
    Index("slides_by_time", "tenant", "created_at", "id"),
    _index_of_few("slides_not_analysed", NOT_ANALYSED),
)

analyses = Table(
    "analyses",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("slide_id", String(36), nullable=False),
    Column("slide_name", String(255), nullable=False),
    Column("status", String(16), nullable=False),
    Column("request", JSON, nullable=False),
    Column("model", String(255), nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("priority", String(16), nullable=False),
    Column("accession_number", String(255)),
    Column("slide_identifier", String(255)),  # on the slide's label, as far as known: orders are found by it
    Column("patient_id", String(255)),  # of its order, for searches
    Column("error", JSON),
    Column("result_sha256", String(64)),
    Column("files", NULLABLE_JSON),  # SHA-256 of the result's other files, by kind: `service.store.results`
    Column("damage", NULLABLE_JSON),  # when which file was found not to be what was written, by kind
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("order_id", String(36)),  # which of `orders` its result goes out for
    Column("moves", Integer, nullable=False, default=0),  # how often a person has given it to another order
    Column("label", NULLABLE_JSON),  # what the slide's header says: `service.slide_label`
    Column("uploaded_order", NULLABLE_JSON),  # what its upload said of its order
    Column("held", NULLABLE_JSON),  # why nothing of it is sent: `service.store.holds`
    Column("accepted", NULLABLE_JSON),  # keys of conflicts that a person has decided
    Column("name_folded", FOLDED, nullable=False, server_default=""),
    Column("accession_folded", FOLDED, nullable=False, server_default=""),
    Column("signed", Boolean),  # of one that succeeded
    Column("signed_readings", Integer),  # of it: `service.readings.signed_readings`, how many
    Column("summary", NULLABLE_JSON),  # of its result; null: still to be made (`service.store.summaries`)
    Index("analyses_by_time", "tenant", "created_at", "id"),
    Index("analyses_by_accession", "tenant", "accession_number", "created_at", "id"),
    Index("analyses_by_name", "tenant", "name_folded"),
    Index("analyses_by_accession_folded", "tenant", "accession_folded"),
    Index("analyses_by_slide", "tenant", "slide_id", "created_at", "id"),
    Index("analyses_signed", "tenant", "signed", "created_at", "id"),
    Index("analyses_signed_readings", "tenant", "signed_readings", "created_at", "id"),
    Index("analyses_by_slide_identifier", "tenant", "slide_identifier"),
    Index("analyses_by_patient", "tenant", "patient_id", "created_at", "id"),
    Index("analyses_by_status", "status"),
    Index("analyses_by_status_and_time", "tenant", "status", "created_at", "id"),
    Index("analyses_by_end", "finished_at"),
    Index("analyses_by_order", "order_id"),
    _index_of_few("analyses_held", text("held IS NOT NULL")),
    _index_of_few("analyses_damaged", text("damage IS NOT NULL")),
    _index_of_few("analyses_to_summarize", text("summary IS NULL AND status = 'succeeded'")),
)

# What one worker does at a time: a whole analysis, a part of its map, or the merge of the parts.
tasks = Table(
    "tasks",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("analysis_id", String(36), ForeignKey("analyses.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("kind", String(8), nullable=False),  # whole, part, merge
    Column("part", Integer, nullable=False, default=0),
    Column("parts", Integer, nullable=False, default=1),
    Column("status", String(8), nullable=False, index=True),  # queued, running, done
    Column("priority", String(16), nullable=False),
    Column("sent", Boolean, nullable=False, default=False),  # to the broker
    Column("send_after", Float, nullable=False, default=0.0),
    Column("lease", String(36)),  # whoever holds it, runs it
    Column("beat", Integer, nullable=False, default=0),  # rises while the holder lives
    Column("claims", Integer, nullable=False, default=0),  # every start
    Column("attempts", Integer, nullable=False, default=0),  # starts that were not handed back
    Column("done", Integer, nullable=False, default=0),  # patches
    Column("total", Integer, nullable=False, default=0),
    Column("patches_per_s", Float, nullable=False, default=0.0),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    Column("analysis_id", String(36), nullable=False),
    Column("created_at", Float, nullable=False),
)

callbacks = Table(
    "callbacks",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("analysis_id", String(36), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("created_at", Float, nullable=False),
    Column("next_at", Float, nullable=False),
    Column("status", String(16), nullable=False, index=True),  # waiting, delivered, given-up
    Column("last_error", Text),
)

# Append-only: a decision is taken back by another entry. The number of the last one is the review's revision.
review_entries = Table(
    "review_entries",
    metadata,
    Column("analysis_id", String(36), ForeignKey("analyses.id", ondelete="CASCADE"), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("action", String(8), nullable=False),  # accept, reject, add, clear, note, sign, void
    Column("detection_id", Integer),
    Column("x", Float),  # level-0 px, of an added one
    Column("y", Float),
    Column("reason", Text),
    Column("reviewer", String(255), nullable=False),
    Column("organization", String(255)),
    Column("key_id", String(16)),
    Column("counted", JSON),  # of a signature: what was signed; no later version of the program counts it otherwise
    Column("patient", NULLABLE_JSON),  # of a signature: the identifiers that it was signed for
    Column("reading", String(9), nullable=False, server_default="first"),  # first, second, consensus
    Column("withheld", Boolean, nullable=False, server_default=text("false")),  # of a signature that was not sent
    Column("at", Float, nullable=False),
)

# One row for each slide that something was ordered for, whether the slide has come or not.
orders = Table(
    "orders",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("number", String(255), nullable=False),  # by which the orderer speaks of it again
    Column("assigner", String(255), nullable=False, default=""),  # of the number; "": placed before it was kept
    Column("processing_id", String(1), nullable=False, default="P"),  # of MSH-11; T and D match no slide
    Column("identifier", String(255), nullable=False),  # on the slide's label; "" of a cancellation that named none
    Column("order", JSON, nullable=False),  # `service.order.Order`
    Column("source", String(16), nullable=False),  # hl7, fhir
    Column("message", String(1000), nullable=False),  # the last one about it: who sent it, and its own number
    Column("sent_at", Float, nullable=False),  # of that message, by its sender's clock; 0: it did not say
    Column("status", String(16), nullable=False),  # waiting, matched, cancelled, draft, on-hold
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Index("orders_by_identifier", "tenant", "identifier", "status"),
    Index("orders_by_number", "tenant", "processing_id", "number", "assigner", "identifier", unique=True),
)

# Messages that were answered: one that comes again gets the same answer, and nothing is done twice.
messages = Table(
    "messages",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("key", String(64), primary_key=True),  # SHA-256 of its sender and its own number
    Column("sha256", String(64), nullable=False),  # of its content
    Column("answer", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
)

# What other systems are to be told, in this order; a row for each version of a result and way out.
outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("analysis_id", String(36), nullable=False, index=True),
    Column("channel", String(16), nullable=False),  # hl7, fhir, dicomweb; every: not shared out yet
    Column("revision", Integer, nullable=False),  # of the review; 0: nobody has signed
    Column("status", String(16), nullable=False),  # waiting, parked, delivered, refused, dropped, replaced
    Column("stream", String(255), nullable=False, default=""),  # what goes out in order: versions, slides of an order
    Column("attempts", Integer, nullable=False, default=0),
    Column("declined", Integer, nullable=False, default=0),  # tries that were answered, but not with yes
    Column("silent", Boolean, nullable=False, default=False),  # the last try had no answer: the channel waits for it
    Column("withdraws", NULLABLE_JSON),  # the order that a result is taken back from
    Column("created_at", Float, nullable=False),
    Column("next_at", Float, nullable=False),
    Column("last_error", Text),
    Index("outbox_by_channel", "channel", "status", "id"),
    Index("outbox_by_status", "status", "channel"),
    Index("outbox_by_time", "created_at"),
)

# Append-only; each entry's checksum covers the one before.
audit_entries = Table(
    "audit_entries",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("actor", String(255), nullable=False),  # a key's id, or a part of the service
    Column("action", String(64), nullable=False),
    Column("object", String(255), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
)


def open_database(url: str | URL, *, migrate: bool = True) -> Engine:
    """Open a database and bring its tables up to date; a file is this user's alone.

    Raises SettingsInvalid, StorageFull, OutputUnwritable.
    """
    try:
        parsed = make_url(url)
        options = CONNECT.get(parsed.get_backend_name(), {})
        engine = create_engine(parsed, pool_pre_ping=True, hide_parameters=True, connect_args=options)
    except (ArgumentError, ImportError) as error:
        raise SettingsInvalid(f"MITOSIS_DATABASE_URL: {error}") from error
    except ValueError as error:  # whose words may be a part of the password
        raise SettingsInvalid(f"MITOSIS_DATABASE_URL: {NO_PORT}") from error
    if engine.dialect.name == "sqlite":
        sqlite.prepare(engine)
    if migrate:
        try:
            with migrating(engine) as connection:
                upgrade(connection)
        except BaseException:
            engine.dispose()
            raise
    return engine


@contextmanager
def migrating(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that changes the tables: one at a time, and all or nothing."""
    with available(), engine.execution_options(writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":  # several gateways may start at once
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
        hold_lock(connection, "migrations")
        yield connection


@contextmanager
def available() -> Iterator[None]:
    """Turn what a database raises when it cannot be reached, or is locked, into DatabaseUnavailable; and text that
    PostgreSQL does not store (with a NUL, half a surrogate, or longer than its column) into RequestInvalid.
    """
    try:
        yield
    except (DataError, UnicodeEncodeError) as error:
        raise RequestInvalid("the database takes no such text: it has a NUL or no UTF-8, or is too long") from error
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        what = str(error.orig if isinstance(error, DBAPIError) else error).splitlines()[0]
        raise DatabaseUnavailable(f"the database does not answer ({what}); try again") from error
    except DatabaseError as error:
        if type(error) is not DatabaseError:  # of the statement, and not of the file
            raise
        raise StoredDamaged(f"the database is damaged ({error.orig}); restore it from the backup") from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a connection that sees one state of the database."""
    with available(), engine.connect() as connection:
        yield connection


def fetch(engine: Engine, query: Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
    """Read all rows of one query."""
    with reading(engine) as connection:
        return connection.execute(query).all()


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction: all of it is done, or nothing."""
    with _turn(engine), available(), engine.execution_options(writes=True).begin() as connection:
        yield connection


def change(engine: Engine, statement: Update | Delete) -> int:
    """Do one statement in a transaction of its own; gives how many rows it changed."""
    with writing(engine) as connection:
        return connection.execute(statement).rowcount


def count(connection: Connection, table: Table, *where: ColumnElement[bool]) -> int:
    """Count the rows of a table that all conditions hold for."""
    return int(connection.execute(select(func.count()).select_from(table).where(*where)).scalar_one())


def paged(
    engine: Engine, query: Select[Any], key: "Column[Any]", after: str | int, at_a_time: int
) -> Iterator[Row[Any]]:
    """Yield the rows of a query by a key, from a value of it on; each page is read as it is by then."""
    while rows := fetch(engine, query.where(key > after).order_by(key).limit(at_a_time)):
        yield from rows
        after = rows[-1]._mapping[key]


def hold_lock(connection: Connection, name: str) -> None:
    """Wait until no other transaction holds the lock of that name, and hold it until this transaction ends.

    SQLite needs none: there, `writing` lets in one transaction at a time.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(name))))


@contextmanager
def _turn(engine: Engine) -> Iterator[None]:
    """Let one writer of this process to SQLite in at a time: else all would hold connections and poll a lock."""
    if engine.dialect.name != "sqlite":
        yield
        return
    if not _writer.acquire(timeout=BUSY_S):
        raise DatabaseUnavailable("the database is busy; try again")
    try:
        yield
    finally:
        _writer.release()
