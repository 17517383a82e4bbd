"""second readers in the work list: how many readings are signed, and lines that say what blinded readers may see"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

INDEX = "analyses_signed_readings"
MADE_ANEW = "UPDATE analyses SET summary = NULL WHERE id IN (SELECT analysis_id FROM review_entries)"


def upgrade() -> None:
    """To this version. Lines of results that somebody has decided on are made anew by the gateway, a few a second."""
    op.add_column("analyses", sa.Column("signed_readings", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE analyses SET signed_readings = (SELECT count(*) FROM review_entries AS signed WHERE signed.analysis_id "
        "= analyses.id AND signed.action = 'sign' AND NOT EXISTS (SELECT 1 FROM review_entries AS later WHERE "
        "later.analysis_id = signed.analysis_id AND later.revision > signed.revision AND "
        "((later.reading = signed.reading AND later.action <> 'void') "
        "OR (later.action = 'void' AND signed.reading = 'consensus')))) WHERE status = 'succeeded'"
    )
    op.execute(MADE_ANEW)
    op.create_index(INDEX, "analyses", ["tenant", "signed_readings", "created_at", "id"])


def downgrade() -> None:
    op.execute(MADE_ANEW)
    op.drop_index(INDEX, table_name="analyses")
    op.drop_column("analyses", "signed_readings")
