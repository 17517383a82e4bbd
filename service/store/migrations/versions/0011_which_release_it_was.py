"""which release brought the tables up to date, so that an earlier one can say what to start instead"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """To this version. Whoever upgrades writes its row (`service.store.migrations`)."""
    op.create_table(
        "upgraded_by",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("version", sa.String(100), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("upgraded_by")
