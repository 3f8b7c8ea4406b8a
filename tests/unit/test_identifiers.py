"""UIDs: what may name a folder, and the UIDs that the node derives."""

from __future__ import annotations

import uuid

import pytest

from dicomnode.domain.identifiers import InvalidUIDError, derive_uid, is_strict_uid, parse_uid


@pytest.mark.parametrize("text", ["1.2", "1.2.840.10008.5.1.4.1.1.2", "2.25.0", "1." + "2" * 62])
def test_a_uid_is_taken_as_it_is(text: str) -> None:
    assert parse_uid(text) == text
    assert is_strict_uid(text)


@pytest.mark.parametrize("text", ["1.2.3\0", "1.2.3 ", "1.2.3 \0"])
def test_padding_is_no_part_of_a_uid(text: str) -> None:
    assert parse_uid(text) == "1.2.3"
    assert not is_strict_uid(text)


@pytest.mark.parametrize("text", ["1.02.3", "00.1", "1.2.00"])
def test_leading_zeros_pass_as_names_but_are_not_strict(text: str) -> None:
    assert parse_uid(text) == text
    assert not is_strict_uid(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1.", ".1", "1..2", "1.2.", "..", "../1.2", "1.2/3", "1.2\\3", "1.2.a", "-1.2"),
        *("1.2\n", "\n1.2", " 1.2", "1.2\0.3", "1.\u0662", "1.²", "/1.2", "1,2", "1. 2", "1.+2"),
    ],
)
def test_anything_else_is_no_uid(text: str) -> None:
    with pytest.raises(InvalidUIDError):
        parse_uid(text)
    assert not is_strict_uid(text)


def test_64_characters_are_the_limit() -> None:
    longest = "1." + "2" * 62
    assert parse_uid(longest + " ") == longest
    with pytest.raises(InvalidUIDError, match="65 characters"):
        parse_uid(longest + "3")
    assert not is_strict_uid(longest + "3")


def test_a_fault_does_not_show_the_value() -> None:
    with pytest.raises(InvalidUIDError) as error:
        parse_uid("DOE^JOHN")
    assert "DOE" not in str(error.value)


def test_a_derived_uid_is_the_same_on_every_machine() -> None:
    """A change of this value gives every result in every archive another UID."""
    assert derive_uid("a", "b") == "2.25.80570676777572633702511940372177902698"
    assert derive_uid() == "2.25.302652579918966106791432553938847512868"


def test_a_derived_uid_is_a_name_based_uuid() -> None:
    value = uuid.UUID(int=int(derive_uid("series", "model").removeprefix("2.25.")))
    assert value.version == 8
    assert value.variant == uuid.RFC_4122


def test_the_parts_are_kept_apart() -> None:
    assert len({derive_uid("ab", "c"), derive_uid("a", "bc"), derive_uid("abc")}) == 3
    assert len({derive_uid(), derive_uid(""), derive_uid("", "")}) == 3
    assert derive_uid("a", "b") != derive_uid("b", "a")
