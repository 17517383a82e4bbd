"""the patient gate: assigners of orders, what slides and signatures say of the patient, held and withdrawn results"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ANALYSES = ("order_id", "moves", "label", "uploaded_order", "held", "accepted")
OUTBOX = ("stream", "declined", "silent", "withdraws")
# of an order; unknown to 0002
RECEIVED = ("sender", "orderer_optional", "patient_identifiers", "placer", "filler", "hl7", "fhir")


def upgrade() -> None:
    nothing = sa.JSON(none_as_null=True)
    # no batches: a table made anew would take those that refer to it with it
    op.add_column("analyses", sa.Column("order_id", sa.String(length=36), nullable=True))
    op.add_column("analyses", sa.Column("moves", sa.Integer(), nullable=False, server_default="0"))
    for name in ("label", "uploaded_order", "held", "accepted"):
        op.add_column("analyses", sa.Column(name, nothing, nullable=True))
    op.add_column("review_entries", sa.Column("patient", nothing, nullable=True))
    op.add_column("orders", sa.Column("assigner", sa.String(length=255), nullable=False, server_default=""))
    op.add_column("orders", sa.Column("processing_id", sa.String(length=1), nullable=False, server_default="P"))
    op.drop_index("orders_by_number", "orders")
    by_number = ["tenant", "processing_id", "number", "assigner", "identifier"]
    op.create_index("orders_by_number", "orders", by_number, unique=True)
    op.add_column("outbox", sa.Column("stream", sa.String(length=255), nullable=False, server_default=""))
    op.add_column("outbox", sa.Column("declined", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("outbox", sa.Column("silent", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("outbox", sa.Column("withdraws", nothing, nullable=True))
    _link_orders(op.get_bind())


def downgrade() -> None:
    """Back from it; orders for which there is no room any more are lost, and nothing is held or taken back."""
    connection = op.get_bind()
    op.execute("DELETE FROM outbox WHERE withdraws IS NOT NULL OR status IN ('parked', 'replaced')")
    op.drop_index("orders_by_number", "orders")
    _keep_one_of_a_number(connection)
    op.create_index("orders_by_number", "orders", ["tenant", "number", "identifier"], unique=True)
    for name in OUTBOX:
        op.drop_column("outbox", name)
    for name in ("assigner", "processing_id"):
        op.drop_column("orders", name)
    op.drop_column("review_entries", "patient")
    for name in ANALYSES:
        op.drop_column("analyses", name)
    _forget_what_came(connection)


def _tables() -> tuple[Any, Any]:
    text, json = sa.String(), sa.JSON()
    orders = sa.table(
        "orders",
        *(sa.column(each, text) for each in ("id", "tenant", "number", "identifier", "status")),
        sa.column("processing_id", text),
        sa.column("updated_at", sa.Float()),
        sa.column("order", json),
    )
    analyses = sa.table(
        "analyses",
        *(sa.column(each, text) for each in ("id", "tenant", "slide_identifier", "order_id")),
        sa.column("request", json),
    )
    return orders, analyses


def _link_orders(connection: sa.Connection) -> None:
    """Give each analysis the order that it was matched with: the newest of its slide."""
    orders, analyses = _tables()
    found = connection.execute(sa.select(orders).where(orders.c.status == "matched").order_by(orders.c.updated_at))
    for row in found.all():
        same = sa.and_(analyses.c.tenant == row.tenant, analyses.c.slide_identifier == row.identifier)
        connection.execute(sa.update(analyses).where(same).values(order_id=row.id))


def _keep_one_of_a_number(connection: sa.Connection) -> None:
    orders, _ = _tables()
    connection.execute(sa.delete(orders).where(orders.c.processing_id != "P"))
    known = set()
    for row in connection.execute(sa.select(orders).order_by(orders.c.updated_at.desc())).all():
        key = (row.tenant, row.number, row.identifier)
        if key in known:
            connection.execute(sa.delete(orders).where(orders.c.id == row.id))
        known.add(key)


def _forget_what_came(connection: sa.Connection) -> None:
    """Take out of orders what 0002 would refuse to read."""
    orders, analyses = _tables()
    for row in connection.execute(sa.select(orders.c.id, orders.c.order)).all():
        connection.execute(sa.update(orders).where(orders.c.id == row.id).values(order=_plain(row.order)))
    for row in connection.execute(sa.select(analyses.c.id, analyses.c.request)).all():
        if row.request and row.request.get("order"):
            request = row.request | {"order": _plain(row.request["order"])}
            connection.execute(sa.update(analyses).where(analyses.c.id == row.id).values(request=request))


def _plain(order: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in order.items() if name not in RECEIVED}
