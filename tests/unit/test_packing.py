"""Records that go between processes come back equal, whatever is in them."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import header

from dicomnode.domain.images import ImageFacts
from dicomnode.domain.records import Header
from dicomnode.services.messages import Store, StoredAll

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
FACTS = st.builds(
    ImageFacts,
    image_type=st.lists(st.text(), max_size=3).map(tuple),
    orientation=st.lists(NUMBERS, max_size=6).map(tuple),
    rows=st.none() | st.integers(0, 1 << 16),
    span=st.lists(NUMBERS, max_size=3).map(tuple),
    kvp=st.none() | NUMBERS,
    rescaled=st.booleans(),
    derivation=st.text(),
    kernel=st.lists(st.text(), max_size=2).map(tuple),
)


@given(FACTS)
def test_facts_come_back_equal(facts: ImageFacts) -> None:
    assert pickle.loads(pickle.dumps(facts)) == facts


@given(facts=FACTS, place=st.none() | NUMBERS, description=st.text(max_size=64))
def test_a_stored_instance_comes_back_equal(
    facts: ImageFacts, place: float | None, description: str
) -> None:
    made: Header = header("1.1", image=facts, place_mm=place, series_description=description)
    store = Store(
        header=made,
        sop_class_uid=made.sop_class_uid,
        sop_instance_uid=made.sop_instance_uid,
        digest="d",
        size=7,
        tmp="t",
    )
    stored = StoredAll((store, store))
    again = pickle.loads(pickle.dumps(stored, pickle.HIGHEST_PROTOCOL))
    assert again == stored
    assert again.stores[1].header.image == facts
    with pytest.raises(FrozenInstanceError):
        again.stores[1].header.modality = "MR"
