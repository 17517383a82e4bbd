"""retention that does not trust the clock; checksums of all that a result is; indexes for 200,000 analyses"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


INDEXES = (
    ("slides", "slides_by_sha256", ["sha256"]),
    ("slides", "slides_by_use", ["used_at"]),
    ("analyses", "analyses_by_status_and_time", ["tenant", "status", "created_at", "id"]),
    ("analyses", "analyses_by_end", ["finished_at"]),
    ("analyses", "analyses_by_order", ["order_id"]),
    ("outbox", "outbox_by_status", ["status", "channel"]),
    ("outbox", "outbox_by_time", ["created_at"]),
)
OF_SOME = (("analyses_held", "held IS NOT NULL"), ("analyses_damaged", "damage IS NOT NULL"))


def upgrade() -> None:
    """To this version. Whatever was written last, by then the clock was believed."""
    nothing = sa.JSON(none_as_null=True)
    for name in ("files", "damage"):
        op.add_column("analyses", sa.Column(name, nothing, nullable=True))
    op.drop_index("analyses_by_accession", "analyses")
    op.create_index("analyses_by_accession", "analyses", ["tenant", "accession_number", "created_at", "id"])
    for table, name, columns in INDEXES:
        op.create_index(name, table, columns)
    for name, some in OF_SOME:
        which = sa.text(some)
        op.create_index(name, "analyses", ["tenant", "created_at", "id"], sqlite_where=which, postgresql_where=which)
    op.create_table(
        "retention",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.Column("refused_at", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("allowed_at", sa.Float(), nullable=True),
    )
    op.execute(
        "INSERT INTO retention (id, last_at) SELECT 1, latest FROM (SELECT max(at) AS latest FROM ("
        "SELECT max(at) AS at FROM audit_entries UNION SELECT max(created_at) FROM analyses) AS written) AS newest "
        "WHERE latest IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_table("retention")
    op.drop_index("analyses_by_accession", "analyses")
    op.create_index("analyses_by_accession", "analyses", ["tenant", "accession_number"])
    for name, _ in OF_SOME:
        op.drop_index(name, "analyses")
    for table, name, _ in INDEXES:
        op.drop_index(name, table)
    for name in ("files", "damage"):
        op.drop_column("analyses", name)
