"""reviews, orders, outbox and audit"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("number", sa.Integer(), autoincrement=False, primary_key=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("object", sa.String(255), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
    )
    with op.batch_alter_table("analyses", schema=None) as batch_op:
        batch_op.add_column(sa.Column("slide_identifier", sa.String(255)))
        batch_op.create_index("analyses_by_slide_identifier", ["tenant", "slide_identifier"], unique=False)

    op.create_table(
        "messages",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("number", sa.String(255), nullable=False),
        sa.Column("identifier", sa.String(255), nullable=False),
        sa.Column("order", sa.JSON(), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("message", sa.String(1000), nullable=False),
        sa.Column("sent_at", sa.Float(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Index("orders_by_identifier", "tenant", "identifier", "status"),
        sa.Index("orders_by_number", "tenant", "number", "identifier", unique=True),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), autoincrement=True, primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("analysis_id", sa.String(36), nullable=False),
        sa.Column("channel", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Index("ix_outbox_analysis_id", "analysis_id"),
        sa.Index("outbox_by_channel", "channel", "status", "id"),
    )
    op.create_table(
        "review_entries",
        sa.Column("analysis_id", sa.String(36), sa.ForeignKey("analyses.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("revision", sa.Integer(), autoincrement=False, primary_key=True),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("detection_id", sa.Integer()),
        sa.Column("x", sa.Float()),
        sa.Column("y", sa.Float()),
        sa.Column("reason", sa.Text()),
        sa.Column("reviewer", sa.String(255), nullable=False),
        sa.Column("organization", sa.String(255)),
        sa.Column("key_id", sa.String(16)),
        sa.Column("counted", sa.JSON()),
        sa.Column("at", sa.Float(), nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("key_id", sa.String(16), sa.ForeignKey("keys.id", ondelete="CASCADE"), nullable=False),
        sa.Column("ends_at", sa.Float(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("sessions")
    op.drop_table("review_entries")
    op.drop_table("outbox")
    op.drop_table("orders")
    op.drop_table("messages")
    op.drop_index("analyses_by_slide_identifier", "analyses")
    op.drop_column("analyses", "slide_identifier")  # no batch: the table made anew would take its tasks with it

    op.drop_table("audit_entries")
