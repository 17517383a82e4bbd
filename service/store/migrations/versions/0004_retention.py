"""retention that does not trust the clock; checksums of all that a result is; indexes for 200,000 analyses"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """To this version. Whatever was written last, by then the clock was believed."""
    nothing = sa.JSON(none_as_null=True)
    for name in ("files", "damage"):
        op.add_column("analyses", sa.Column(name, nothing, nullable=True))
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
    """Back from it."""
    op.drop_table("retention")
    for name in ("files", "damage"):
        op.drop_column("analyses", name)
