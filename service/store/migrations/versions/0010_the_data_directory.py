"""the mark of the data directory: a worker whose directory lacks it has another than the gateway"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """To this version. The gateway makes the mark when it starts."""
    op.create_table(
        "data_directory",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("mark", sa.String(36), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("data_directory")
