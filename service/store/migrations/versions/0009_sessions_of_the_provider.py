"""sessions of browsers know the OpenID provider's own session by a column, and no longer by their id and cookie"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """To this version. Sessions whose id names the provider's have cookies of the form before: they sign in anew."""
    op.add_column("sessions", sa.Column("provider_session", sa.String(64), nullable=True))
    op.execute("DELETE FROM sessions WHERE sha256 LIKE '%-%'")


def downgrade() -> None:
    """Back from it; sessions that the provider could not end any more, end."""
    op.execute("DELETE FROM sessions WHERE provider_session IS NOT NULL")
    op.drop_column("sessions", "provider_session")
