"""A file's seal: in the preamble, told from any other, and of no matter to who reads DICOM."""

from __future__ import annotations

from io import BytesIO

import pydicom
from hypothesis import given
from hypothesis import strategies as st
from small_ct import CT, encoded, instance

from dicomnode.instances import file_prefix, seals
from dicomnode.instances.seals import PREAMBLE_BYTES, Seal

DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(
    size=st.integers(0, 2**63),
    digest=DIGESTS,
    association_id=st.none() | st.integers(1, 2**62),
)
def test_what_is_sealed_is_read_again(size: int, digest: str, association_id: int | None) -> None:
    seal = Seal(size=size, digest=digest, association_id=association_id)
    preamble = seals.encode(seal)
    assert len(preamble) == PREAMBLE_BYTES
    assert seals.decode(preamble) == seal


@given(st.binary(max_size=200))
def test_no_other_preamble_is_a_seal(data: bytes) -> None:
    assert seals.decode(data) is None


def test_an_unsealed_or_cut_preamble_is_none() -> None:
    assert seals.decode(file_prefix(CT, "1.2", "1.2.840.10008.1.2.1")[:PREAMBLE_BYTES]) is None
    seal = Seal(size=1, digest="00" * 32, association_id=None)
    assert seals.decode(seals.encode(seal)[:-1]) is None


def test_a_sealed_file_is_a_dicom_file() -> None:
    syntax = "1.2.840.10008.1.2.1"
    prefix = file_prefix(CT, "1.2", syntax)
    preamble = seals.encode(Seal(size=7, digest="ab" * 32, association_id=3))
    data = preamble + prefix[PREAMBLE_BYTES:] + encoded(instance(SOPInstanceUID="1.2"))
    assert pydicom.dcmread(BytesIO(data)).SOPInstanceUID == "1.2"
