"""Which order an analysis' result goes out for, as long as nobody has to be asked.

A slide that comes takes the newest order for it. An order that comes, or says something new, is offered to the analyses
of its slide: one whose result was told, signed or held keeps the order that it has, and takes from that order alone
what is said anew of the same patient. Everything else is for a person (`service.store.holds`). An order for training
takes no slide that another order is for, and gives way to one of production.
"""

from typing import Any

from sqlalchemy import Connection, Row, and_, select

from service.order import ReceivedOrder, training_mark
from service.patient_gate import compare, differ, identifiers_of, second_order
from service.store import holds, outbox
from service.store.database import analyses, orders

FOUND = ("queued", "running", "succeeded")  # analyses that an order is for


def match(connection: Connection, analysis_id: str) -> None:
    """Give a slide that has come its newest order, if there is one, and see whether all agree on the patient."""
    row = connection.execute(select(analyses).where(analyses.c.id == analysis_id)).one()
    waiting = holds.orders_of_slide(connection, row.tenant, row.slide_identifier)
    if waiting and (waiting[0].processing_id == "P" or not row.uploaded_order):
        holds.give(connection, row, waiting[0])
    holds.judge(connection, analysis_id)


def offer(connection: Connection, order_id: str) -> None:
    """Offer an order, as it is known now, to all analyses of its slide."""
    order = connection.execute(select(orders).where(orders.c.id == order_id)).one()
    which = and_(analyses.c.tenant == order.tenant, analyses.c.slide_identifier == order.identifier)
    query = select(analyses).where(which, analyses.c.status.in_(FOUND)).with_for_update()
    for analysis in connection.execute(query).all():
        _offer(connection, order, analysis)


def _offer(connection: Connection, order: Row[Any], analysis: Row[Any]) -> None:
    said, carried = ReceivedOrder.model_validate(order.order), holds.carried_order(analysis.request)
    trained = training_mark(carried) is not None
    if said.processing_id and carried != holds.NO_ORDER and not trained:
        return
    renamed = differ(carried.placer_order_number, said.placer_order_number)  # of what an upload said of its order
    own = analysis.order_id == order.id or (analysis.order_id is None and not renamed)
    same_patient = compare(identifiers_of(carried), identifiers_of(said)) in ("agree", "silent")
    told = outbox.told(connection, analysis.id) or holds.signed_for(connection, analysis.id) is not None
    free = not told and analysis.held is None
    if (same_patient and (own or free)) or ((own or (trained and not said.processing_id)) and free):
        changed = holds.completed(analysis.uploaded_order, said) != analysis.request.get("order")
        holds.give(connection, analysis, order)
        if changed and analysis.status == "succeeded":
            outbox.announce_again(connection, analysis.id, analysis.tenant)
        holds.judge(connection, analysis.id)
    elif same_patient:
        holds.judge(connection, analysis.id, also=[second_order(carried, order.id)])
    else:
        holds.judge(connection, analysis.id)
