"""Who names the same patient: identifiers with their types and assigners, and what is no agreement."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.order import Identifier, Order, ReceivedOrder, assigner_uri
from service.patient_gate import Statement, compare, conflicts, identifiers_of, preferred

MR: dict[str, Any] = {"namespace": "KIS", "type": "MR"}


def number(value: str, **facts: Any) -> Identifier:
    return Identifier(value=value, **facts)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ([], [number("1", **MR)], "silent"),
        ([number("1", **MR)], [number("1", **MR)], "agree"),
        ([number("1", **MR)], [number("2", **MR)], "conflict"),
        ([number("1", **MR)], [number("1")], "agree"),  # as scanners write it
        ([number("1", **MR)], [number("2")], "apart"),
        ([number("1", **MR)], [number("1", namespace="OTHER", type="MR")], "apart"),
        ([number("1", **MR)], [number("1", namespace="KIS", type="NI")], "apart"),
        ([number("1", system="urn:oid:1.2")], [number("1", system="urn:oid:1.2", namespace="X")], "agree"),
        (
            [number("1", system="urn:oid:1.2", namespace="X")],
            [number("1", system="urn:oid:1.3", namespace="X")],
            "apart",
        ),
        # one that differs outweighs one that agrees
        ([number("1", **MR), number("9", type="NI", namespace="KK")], [number("2", **MR), number("9")], "conflict"),
        # of two records that were merged, either may be meant
        ([number("1", **MR), number("2", **MR)], [number("2", **MR)], "agree"),
        # what does not hold any more does not count, unless there is nothing else
        ([number("1", **MR, valid_to="2001-01-01"), number("2", **MR)], [number("1", **MR)], "conflict"),
        ([number("1", **MR, former=True)], [number("1", **MR)], "agree"),
    ],
)
def test_identifiers_are_compared_with_type_and_assigner(
    ours: list[Identifier], theirs: list[Identifier], verdict: str
) -> None:
    assert compare(ours, theirs) == compare(theirs, ours) == verdict


identifiers = st.lists(
    st.builds(
        Identifier,
        value=st.sampled_from("12"),
        namespace=st.sampled_from([None, "A", "B"]),
        system=st.sampled_from([None, "urn:oid:1.2", "urn:oid:1.3"]),
        type=st.sampled_from([None, "MR", "NI"]),
    ),
    max_size=4,
)


@given(identifiers, identifiers)
def test_both_sides_judge_alike_and_nothing_in_common_is_no_agreement(
    ours: list[Identifier], theirs: list[Identifier]
) -> None:
    verdict = compare(ours, theirs)
    assert verdict == compare(theirs, ours)
    assert compare(ours, ours) in ("agree", "silent")
    if verdict == "agree":
        assert {each.value for each in ours} & {each.value for each in theirs}


def test_a_number_without_an_assigner_is_its_senders() -> None:
    ours = ReceivedOrder(patient_id="1", sender="A^X", patient_identifiers=[number("1", type="MR")])
    theirs = ours.model_copy(update={"sender": "B^X"})
    assert compare(identifiers_of(ours), identifiers_of(theirs)) == "apart"
    assert compare(identifiers_of(ours), identifiers_of(ours)) == "agree"
    assert compare(identifiers_of(ours), [number("1")]) == "agree"
    assert identifiers_of(Order(patient_id="1", patient_id_issuer="KIS")) == [number("1", namespace="KIS")]


def test_conflicts_name_nobody_and_change_their_key_with_what_is_compared() -> None:
    order = Order(patient_id="1", patient_id_issuer="KIS", accession_number="B-1", container_id="S-1")
    said = Statement("the slide's header", [number("2", namespace="KIS")], "B-2", "S-2")
    found = conflicts(order, [said])
    assert [each.code for each in found] == ["patient-conflict", "accession-conflict", "container-conflict"]
    assert not any(word in each.detail for each in found for word in ("B-1", "B-2", "S-1", "S-2", "KIS"))
    other = Statement("the slide's header", [number("3", namespace="KIS")], "B-2", "S-2")
    keys, changed = ([each.key for each in conflicts(order, [one])] for one in (said, other))
    assert keys == [each.key for each in conflicts(order, [said])]
    assert keys[0] != changed[0]
    assert keys[1:] == changed[1:]
    assert conflicts(order, [Statement("the slide's header", accession_number=" B-1 ")]) == []


def test_the_identifier_that_is_shown_is_a_valid_medical_record_number() -> None:
    old, insurance, record = number("1", **MR, valid_to="2001-01-01"), number("2", type="NI"), number("3", type="MR")
    assert preferred([old, insurance, record]) == record
    assert preferred([old, insurance]) == insurance
    assert preferred([old]) == old
    assert preferred([]) is None


def test_assigners_of_hl7_dicom_and_fhir_are_written_alike() -> None:
    assert assigner_uri("1.2.3", "ISO") == "urn:oid:1.2.3"
    assert assigner_uri("http://x", "URI") == "http://x"
    assert assigner_uri("lab.example", "DNS") == "dns:lab.example"
    assert assigner_uri("", "ISO") is None
