"""the work list: search by prefix without case, what is signed, a line about each result, slides without an analysis"""

import sqlalchemy as sa
from alembic import op

from service.store.records import folded

revision = "0006"
down_revision = "0005"

PAGE = 5000
FOLDED = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
INDEXES = (
    ("analyses", "analyses_by_name", ["tenant", "name_folded"]),
    ("analyses", "analyses_by_accession_folded", ["tenant", "accession_folded"]),
    ("analyses", "analyses_by_slide", ["tenant", "slide_id", "created_at", "id"]),
    ("analyses", "analyses_signed", ["tenant", "signed", "created_at", "id"]),
    ("slides", "slides_by_time", ["tenant", "created_at", "id"]),
)
OF_SOME = (
    ("slides", "slides_not_analysed", "analysed = false"),
    ("analyses", "analyses_to_summarize", "summary IS NULL AND status = 'succeeded'"),
)


def upgrade() -> None:
    """To this version. Results of before are summarized by the gateway, a few a second."""
    for name in ("name_folded", "accession_folded"):
        op.add_column("analyses", sa.Column(name, FOLDED, nullable=False, server_default=""))
    op.add_column("analyses", sa.Column("signed", sa.Boolean(), nullable=True))
    op.add_column("analyses", sa.Column("summary", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("slides", sa.Column("analysed", sa.Boolean(), nullable=False, server_default=sa.true()))
    _fold()
    op.execute(
        "UPDATE analyses SET signed = EXISTS (SELECT 1 FROM review_entries AS signed WHERE signed.analysis_id = "
        "analyses.id AND signed.action = 'sign' AND signed.revision > (SELECT coalesce(max(void.revision), 0) FROM "
        "review_entries AS void WHERE void.analysis_id = analyses.id AND void.action = 'void')) "
        "WHERE status = 'succeeded'"
    )
    for table, name, columns in INDEXES:
        op.create_index(name, table, columns)
    op.execute(
        "UPDATE slides SET analysed = EXISTS (SELECT 1 FROM analyses "
        "WHERE analyses.tenant = slides.tenant AND slide_id = slides.id)"
    )
    for table, name, some in OF_SOME:
        which = sa.text(some)
        op.create_index(name, table, ["tenant", "created_at", "id"], sqlite_where=which, postgresql_where=which)


def _fold() -> None:
    names = ("id", "slide_name", "accession_number", "name_folded", "accession_folded")
    analyses = sa.table("analyses", *(sa.Column(name, sa.String()) for name in names))
    change = analyses.update().where(analyses.c.id == sa.bindparam("key"))
    change = change.values(name_folded=sa.bindparam("name"), accession_folded=sa.bindparam("accession"))
    known = sa.select(analyses.c.id, analyses.c.slide_name, analyses.c.accession_number).order_by(analyses.c.id)
    connection, after = op.get_bind(), ""
    while rows := connection.execute(known.where(analyses.c.id > after).limit(PAGE)).all():
        values = [{"key": key, "name": folded(name), "accession": folded(number)} for key, name, number in rows]
        connection.execute(change, values)
        after = rows[-1].id


def downgrade() -> None:
    for table, name, _ in (*INDEXES, *OF_SOME):
        op.drop_index(name, table)
    op.drop_column("slides", "analysed")
    for name in ("name_folded", "accession_folded", "signed", "summary"):
        op.drop_column("analyses", name)
