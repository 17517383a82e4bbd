"""second readers: whose reading a decision is of, and signatures that wait for a consensus"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """To this version: every decision of before is the first reader's."""
    op.add_column("review_entries", sa.Column("reading", sa.String(9), nullable=False, server_default="first"))
    op.add_column("review_entries", sa.Column("withheld", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Back from it; second readings, consensuses and signatures that were never sent are lost."""
    op.execute("DELETE FROM review_entries WHERE reading <> 'first' OR withheld = true")
    op.execute(
        "UPDATE analyses SET summary = NULL, signed = EXISTS (SELECT 1 FROM review_entries AS signed WHERE "
        "signed.analysis_id = analyses.id AND signed.action = 'sign' AND signed.revision > (SELECT "
        "coalesce(max(void.revision), 0) FROM review_entries AS void WHERE void.analysis_id = analyses.id AND "
        "void.action = 'void')) WHERE status = 'succeeded'"
    )
    for name in ("reading", "withheld"):
        op.drop_column("review_entries", name)
