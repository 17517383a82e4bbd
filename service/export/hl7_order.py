"""What a result message says of its order: patient, numbers, orderer; as they came, where they came by HL7 v2."""

from service.export.hl7_text import SEX, Fields, escaped, moment, parts, person
from service.order import Identifier, Order, ReceivedOrder, split_name
from service.refusals import FormatUnavailable


def require(order: Order) -> None:
    """Raise FormatUnavailable where LAB-3 has no words for unknown: a result that cannot be filed is not sent."""
    needed = {
        "patient_id": order.patient_id,
        "placer_order_number or accession_number": placer_number(order),
        "ordering_provider": orderer(order) or (isinstance(order, ReceivedOrder) and order.orderer_optional),
    }
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise FormatUnavailable(f"an HL7 result needs {', '.join(missing)} in the order")


class Came(str):
    """A value by which others know the order, the patient or a person: whole, whatever HL7 v2.5.1 has room for.

    Half a name may be somebody else's, and v2.5.1 has no sign for one that was cut.
    """

    __slots__ = ()


def came(order: Order, place: str) -> str:
    """Give the first value of a field as the order had it; nothing where it had none, or did not come by HL7."""
    return next(iter(all_came(order, place)), "")


def all_came(order: Order, place: str) -> list[str]:
    """List the values of a field that HL7 lets repeat."""
    found = order.field(place) if isinstance(order, ReceivedOrder) else ""
    return [Came(each) for each in found.split("~")] if found else []


def patient(order: Order) -> Fields:
    """Write PID."""
    family, given = split_name(order.patient_name or "")
    return {
        1: "1",
        3: all_came(order, "PID-3") or _identifiers(order),
        5: all_came(order, "PID-5") or Came(parts(family, given, "", "", "", "", "L" if family else "U")),
        7: (order.patient_birth_date or "").replace("-", ""),
        8: SEX[order.patient_sex] if order.patient_sex else "",
    }


def _identifiers(order: Order) -> list[str]:
    found = order.patient_identifiers if isinstance(order, ReceivedOrder) else []
    if not found:
        return [Came(parts(order.patient_id or "", "", "", order.patient_id_issuer or "", "PI"))]
    return [_identifier(each) for each in found]


def _identifier(identifier: Identifier) -> Came:
    """Write CX."""
    assigner = "&".join(map(escaped, _assigner(identifier))).rstrip("&")
    days = [(each or "").replace("-", "") for each in (identifier.valid_from, identifier.valid_to)]
    components = (escaped(identifier.value), "", "", assigner, escaped(identifier.type or "PI"), "", *days)
    return Came("^".join(components).rstrip("^"))


def _assigner(identifier: Identifier) -> tuple[str, str, str]:
    """Give an assigner's namespace, universal id, and that one's type."""
    system = identifier.system or ""
    if system.startswith("urn:oid:"):
        return identifier.namespace or "", system.removeprefix("urn:oid:"), "ISO"
    return identifier.namespace or "", system, "URI" if system else ""


def placer_number(order: Order) -> str:
    """Write ORC-2."""
    number = order.placer_order_number or order.accession_number or ""
    return came(order, "ORC-2") or _number(number, order.placer if isinstance(order, ReceivedOrder) else None)


def filler_number(order: Order, analysis_id: str) -> str:
    """Write ORC-3; our own number where the order has none."""
    number = order.filler_order_number or order.accession_number or analysis_id
    return came(order, "ORC-3") or _number(number, order.filler if isinstance(order, ReceivedOrder) else None)


def _number(number: str, identifier: Identifier | None) -> Came:
    """Write EI, with the assigner where it is the number's."""
    assigner = _assigner(identifier) if identifier is not None and identifier.value == number else ()
    return Came(parts(number, *assigner))


def orderer(order: Order) -> str | list[str]:
    """Write OBR-16."""
    own = Came(person(order.ordering_provider_id, order.ordering_provider))
    return all_came(order, "OBR-16") or all_came(order, "ORC-12") or own


def observed_at(order: Order, computed: str) -> str:
    """Write OBR-7: when the specimen was taken, where the order said it, else when it was analysed."""
    said = (came(order, place).partition("^")[0] for place in ("OBR-7", "SPM-17"))
    return next(filter(moment, said), computed)  # a result is not held up by what is no time


def service_of(order: Order) -> str:
    """Write OBR-4; nothing where the order named no service."""
    service = order.service
    return came(order, "OBR-4") or (Came(parts(service.code, service.text, service.system)) if service else "")
