"""What is answered to a proposal of Presentation Contexts (PS3.8 sections 9.3.2.2 and 9.3.3.2)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID_dictionary
from pynetdicom import AllStoragePresentationContexts

from dicomnode.network import contexts
from dicomnode.network.contexts import (
    EITHER,
    LOSSLESS,
    LOSSY,
    TRANSFER_SYNTAXES,
    UNCOMPRESSED,
    VERIFICATION,
    ProposedContext,
    answer,
    is_stored,
    preferred,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
J = "1.2.840.10008.1.2.4."


def one(
    abstract: str, *syntaxes: str, unknown: contexts.UnknownClasses = "keep"
) -> tuple[int, str]:
    proposed = ProposedContext(id=7, abstract_syntax=abstract, transfer_syntaxes=syntaxes)
    (answered,) = answer([proposed], unknown)
    assert (answered.id, answered.abstract_syntax) == (7, abstract)
    assert answered.is_accepted == (answered.result == 0)
    return answered.result, answered.transfer_syntax


def test_every_transfer_syntax_of_the_test_data_is_accepted(test_data: Path) -> None:
    names = [path.name for path in (test_data / "transfer-syntaxes").iterdir() if "_" in path.name]
    found = {name.rsplit("_", 1)[1].removesuffix(".dcm") for name in names}
    assert len(found) == 15
    assert found <= set(TRANSFER_SYNTAXES)


@pytest.mark.parametrize("tail", ["201", "202", "203"])
def test_htj2k_is_accepted(tail: str) -> None:
    assert one(CT, J + tail) == (0, J + tail)


def test_every_transfer_syntax_that_carries_its_pixels_is_accepted() -> None:
    """Nothing of the standard is forgotten, and nothing without its own pixels is acknowledged."""
    of_the_standard = {
        uid for uid, facts in UID_dictionary.items() if facts[1] == "Transfer Syntax"
    }
    without = {uid for uid in of_the_standard if "JPIP" in UID_dictionary[uid][0]}
    without |= {uid for uid in of_the_standard if "SMPTE" in UID_dictionary[uid][0]}
    no_images = {"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2", "1.2.840.10008.1.20"}
    later = {J + "100.1", J + "101.1"}  # fragmentable forms, which older dictionaries lack
    assert of_the_standard - without - no_images - set(TRANSFER_SYNTAXES) == set()
    assert set(TRANSFER_SYNTAXES) - of_the_standard <= later
    assert len(set(TRANSFER_SYNTAXES)) == len(TRANSFER_SYNTAXES)


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ((EXPLICIT, BIG, IMPLICIT), EXPLICIT),
        ((IMPLICIT, EXPLICIT), EXPLICIT),
        ((BIG, IMPLICIT), IMPLICIT),
        ((J + "50", IMPLICIT), IMPLICIT),  # lossy only if the peer offers nothing else
        ((J + "70", EXPLICIT), EXPLICIT),
        ((J + "90", J + "80", J + "70"), J + "70"),
        ((J + "91", J + "50", J + "90"), J + "90"),
        ((J + "50", J + "51"), J + "51"),
        ((J + "81",), J + "81"),
        ((J + "94", J + "50"), J + "50"),
        (("1.2.3.4", IMPLICIT), IMPLICIT),
    ],
)
def test_what_we_prefer_comes_first(proposed: tuple[str, ...], chosen: str) -> None:
    assert one(CT, *proposed) == (0, chosen)


@given(st.lists(st.sampled_from(TRANSFER_SYNTAXES), min_size=1, unique=True))
def test_no_bit_is_lost_on_our_account(proposed: list[str]) -> None:
    """A lossy syntax is chosen only where nothing else was offered; the order means nothing."""
    chosen = preferred(proposed)
    assert chosen in proposed
    groups = [set(group) for group in (UNCOMPRESSED, LOSSLESS, EITHER, LOSSY)]
    best = next(group for group in groups if group & set(proposed))
    assert chosen in best
    assert preferred(proposed[::-1]) == chosen


@pytest.mark.parametrize(
    "syntaxes", [(), ("1.2.3",), (J + "94",), (J + "205",), ("1.2.840.10008.1.2.7.1",), ("",)]
)
def test_other_transfer_syntaxes_are_refused_as_such(syntaxes: tuple[str, ...]) -> None:
    assert one(CT, *syntaxes)[0] == contexts.TRANSFER_SYNTAXES_NOT_SUPPORTED


def test_padding_of_a_uid_is_overlooked() -> None:
    padded = ProposedContext(id=1, abstract_syntax=CT + "\0", transfer_syntaxes=(IMPLICIT + "\0",))
    (answered,) = answer([padded])
    assert (answered.abstract_syntax, answered.result, answered.transfer_syntax) == (
        CT,
        0,
        IMPLICIT,
    )


@pytest.mark.parametrize("unknown", ["keep", "refuse"])
def test_verification_is_always_accepted(unknown: contexts.UnknownClasses) -> None:
    assert one(VERIFICATION, IMPLICIT, unknown=unknown) == (0, IMPLICIT)
    assert one(VERIFICATION, J + "50", unknown=unknown)[0] == 4


@pytest.mark.parametrize(
    "keyword",
    [
        "CTImageStorage",
        "EnhancedCTImageStorage",
        "LegacyConvertedEnhancedCTImageStorage",
        "MRImageStorage",
        "EnhancedMRImageStorage",
        "PositronEmissionTomographyImageStorage",
        "EnhancedPETImageStorage",
        "SecondaryCaptureImageStorage",
        "MultiFrameTrueColorSecondaryCaptureImageStorage",
        "BasicTextSRStorage",
        "EnhancedSRStorage",
        "ComprehensiveSRStorage",
        "Comprehensive3DSRStorage",
        "XRayRadiationDoseSRStorage",
        "KeyObjectSelectionDocumentStorage",
        "SegmentationStorage",
        "RTStructureSetStorage",
        "RTDoseStorage",
        "RTPlanStorage",
        "RTImageStorage",
        "GrayscaleSoftcopyPresentationStateStorage",
        "ColorSoftcopyPresentationStateStorage",
        "AdvancedBlendingPresentationStateStorage",
    ],
)
def test_what_surrounds_a_ct_is_always_taken(keyword: str) -> None:
    (uid,) = [uid for uid, facts in UID_dictionary.items() if facts[4] == keyword]
    assert is_stored(uid, "refuse")
    assert is_stored(uid, "keep")


def test_label_map_segmentation_is_taken() -> None:
    assert is_stored("1.2.840.10008.5.1.4.1.1.66.7", "refuse")


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.5.1.4.1.1.6.1",  # ultrasound
        "1.2.840.10008.5.1.4.1.1.5",  # nuclear medicine, retired in 1993
        "1.2.840.10008.5.1.4.1.1.999.1",  # a class to come
        "1.3.12.2.1107.5.9.1",  # Siemens CSA Non-Image Storage: private
        "1.2.840.113619.4.26",  # GE private 3D Model Storage
        "1.2.840.10008.5.1.4.34.7",
    ],
)
def test_unknown_classes_are_kept_or_refused_as_configured(uid: str) -> None:
    assert is_stored(uid, "keep")
    assert not is_stored(uid, "refuse")
    assert one(uid, EXPLICIT, unknown="refuse")[0] == contexts.ABSTRACT_SYNTAX_NOT_SUPPORTED


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.5.1.4.1.2.2.1",  # Study Root Query/Retrieve - FIND
        "1.2.840.10008.3.1.2.3.3",  # Modality Performed Procedure Step
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol Storage: no patient
        "1.2.840.10008.5.1.4.1.1.201.1",  # Inventory Storage: the same
        "1.2.840.10008.5.1.4.1.1.201.2",  # Inventory - FIND
        "",
        "1.2.840.10008.5.1.4.1.1.2\0.1",
        "1.2.840.10008.5.1.4.1.1.../../etc",
        "1." * 40 + "1",
        "no uid",
    ],
)
def test_what_is_no_storage_class_is_never_accepted(uid: str) -> None:
    assert one(uid, EXPLICIT, IMPLICIT)[0] == contexts.ABSTRACT_SYNTAX_NOT_SUPPORTED


def test_every_storage_class_that_pynetdicom_knows_is_kept() -> None:
    known = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    assert len(known) >= 170
    assert [uid for uid in known if not is_stored(uid, "keep")] == []


def test_no_class_of_the_table_is_a_query() -> None:
    for uid in contexts.KNOWN_STORAGE_CLASSES:
        name = UID_dictionary[uid][0] if uid in UID_dictionary else ""
        assert "Storage" in name or not name, uid


def test_storage_commitment_is_accepted_uncompressed() -> None:
    """Archives call to report; what is no report of theirs is refused later."""
    syntaxes = (*contexts.UNCOMPRESSED[:3], "1.2.840.10008.1.2.4.90")
    for syntax in syntaxes:
        proposed = ProposedContext(
            id=1, abstract_syntax=contexts.COMMITMENT, transfer_syntaxes=(syntax,)
        )
        (found,) = contexts.answer([proposed], "refuse")
        assert found.is_accepted == (syntax in contexts.UNCOMPRESSED)
        assert not contexts.is_stored(contexts.COMMITMENT, "keep")
