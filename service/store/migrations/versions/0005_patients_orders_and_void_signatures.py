"""the patient of each analysis, for searches; orders that wait to be placed, or are for training; void signatures"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("analyses", sa.Column("patient_id", sa.String(length=255), nullable=True))
    analyses = sa.table("analyses", sa.column("request", sa.JSON()), sa.column("patient_id", sa.String()))
    known = analyses.c.request[("order", "patient_id")].as_string()
    op.execute(sa.update(analyses).values(patient_id=known))
    op.create_index("analyses_by_patient", "analyses", ["tenant", "patient_id", "created_at", "id"])


def downgrade() -> None:
    """Back from it: orders that may not be acted on yet are cancelled, a void signature is none."""
    op.drop_index("analyses_by_patient", "analyses")
    op.drop_column("analyses", "patient_id")
    op.execute("UPDATE orders SET status = 'cancelled' WHERE status IN ('draft', 'on-hold')")
    op.execute(
        "DELETE FROM review_entries WHERE action IN ('sign', 'void') AND revision <= (SELECT max(revision) FROM "
        "review_entries AS last WHERE last.analysis_id = review_entries.analysis_id AND last.action = 'void')"
    )
    _forget_processing_ids(op.get_bind())


def _forget_processing_ids(connection: sa.Connection) -> None:
    """Take out of orders what 0004 would refuse to read; those for training go out for nobody there."""
    json = sa.JSON(none_as_null=True)
    orders = sa.table("orders", sa.column("id", sa.String()), sa.column("order", json))
    analyses = sa.table("analyses", sa.column("id", sa.String()), sa.column("request", json))
    for row in connection.execute(sa.select(orders)).all():
        connection.execute(sa.update(orders).where(orders.c.id == row.id).values(order=_plain(row.order)))
    for row in connection.execute(sa.select(analyses)).all():
        order = (row.request or {}).get("order")
        if order:
            request = row.request | {"order": None if order.get("processing_id") else _plain(order)}
            connection.execute(sa.update(analyses).where(analyses.c.id == row.id).values(request=request))


def _plain(order: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in order.items() if name != "processing_id"}
