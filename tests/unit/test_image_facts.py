"""What is read of an image for rules and chooser: real files, and values that do not fit."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian
from small_ct import encoded, instance

from dicomnode.domain.images import ImageFacts, decode, encode
from dicomnode.instances.image_facts import KEYWORDS, facts_of, place_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

LOSSY = "transfer-syntaxes/CTImage.dcm"
TEXT = st.text(max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=32)
FACTS = st.builds(
    ImageFacts,
    image_type=st.lists(TEXT, max_size=4).map(tuple),
    orientation=st.lists(NUMBER, max_size=6).map(tuple),
    rows=st.none() | st.integers(0, 9999),
    kev=st.none() | NUMBER,
    rescaled=st.booleans(),
    kernel=st.lists(TEXT, max_size=2).map(tuple),
    description=TEXT,
)


def read(**changes: Any) -> ImageFacts:
    return facts_of(parsed(**changes))


def parsed(**changes: Any) -> Dataset:
    data = encoded(instance(**changes), ExplicitVRLittleEndian)
    return read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)


def coded(value: str, scheme: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    return item


def holding(**elements: Any) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


@given(FACTS)
def test_facts_survive_the_ledger(facts: ImageFacts) -> None:
    assert decode(encode(facts)) == facts


def test_what_is_not_stated_takes_no_room_and_unknown_names_are_passed_over() -> None:
    assert encode(ImageFacts()) == "{}"
    assert decode("") == ImageFacts()
    assert decode('{"kvp":120.0,"of_a_later_version":1}') == ImageFacts(kvp=120.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "crlm-ct-1004/image",
            {
                "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"),
                "kernel": ("STANDARD",),
                "kvp": 120.0,
                "rescale_type": "HU",
                "rescaled": True,
                "slice_thickness_mm": 5.0,
                "contrast": "GASTRO & OMNI",
                "protocol": "CT CAP",
                "device": "LightSpeed16",
                "orientation": (1, 0, 0, 0, 1, 0),
            },
        ),
        (
            "odd/enhanced-ct-2-frames.dcm",
            {
                "image_type": ("DERIVED", "PRIMARY", "PERFUSION", "RCBF"),
                "units": ("ml/100ml/s",),
                "rescale_type": "US",
                "pixel_presentation": "COLOR",
                "volumetric_properties": "VOLUME",
                "frames": 2,
                "span": (149.0, 159.0, 2.0),
                "slice_thickness_mm": 10.0,
            },
        ),
        (
            "odd/philips-dose-screen.dcm",
            {
                "image_type": ("DERIVED", "SECONDARY", "DOSE_INFO"),
                "photometric": "RGB",
                "rescaled": False,
                "orientation": (),
            },
        ),
        (
            "odd/philips-localizer.dcm",
            {"orientation": (0, 1, 0, 0, 0, -1)},
        ),
        ("geometry/gantrytilting/001", {"orientation": (1, 0, 0, 0, 0.97, -0.242), "kernel": ()}),
        ("totalsegmentator/example_ct_dicom", {"kernel": ("Br38f", "3"), "contrast": "APPLIED"}),
        (
            f"{LOSSY}_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm",
            {"derivation_codes": ("DCM:113040",)},
        ),
    ],
)
def test_real_files(test_data: Path, name: str, expected: dict[str, Any]) -> None:
    path = test_data / name
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    dataset = pydicom.dcmread(files[0], stop_before_pixels=True, force=True)
    facts = facts_of(dataset)
    assert {key: getattr(facts, key) for key in expected} == expected


def test_slices_of_one_reconstruction_differ_in_their_place_alone(test_data: Path) -> None:
    paths = sorted((test_data / "crlm-ct-1004" / "image").glob("*.dcm"))
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    assert len({facts_of(header) for header in headers}) == 1
    places = sorted(place_of(header) or 0.0 for header in headers)
    assert len(places) == 41
    assert {round(b - a, 3) for a, b in pairwise(places)} == {5.0}


def test_the_place_is_measured_along_the_tilted_normal(test_data: Path) -> None:
    folder = test_data / "geometry" / "gantrytilting" / "001"
    headers = [
        pydicom.dcmread(path, stop_before_pixels=True, force=True)
        for path in sorted(folder.iterdir())
    ]
    places = sorted(place_of(header) or 0.0 for header in headers)
    steps = [round(b - a, 2) for a, b in pairwise(places)]
    assert steps == [4.85, 4.85, 4.85]


def test_energy_units_and_derivation_are_found_within_their_sequences() -> None:
    facts = read(
        MultienergyCTAcquisition="YES",
        MultienergyCTProcessingSequence=[holding(MonoenergeticEnergyEquivalent=70.0)],
        RealWorldValueMappingSequence=[
            holding(MeasurementUnitsCodeSequence=[coded("mg/cm3", "UCUM")])
        ],
        DerivationCodeSequence=[coded("113072", "DCM"), coded("113097", "DCM")],
        ContrastBolusAgentSequence=[coded("C-B0300", "SRT")],
    )
    assert (facts.multienergy, facts.kev, facts.units) == (True, 70.0, ("mg/cm3",))
    assert facts.derivation_codes == ("DCM:113072", "DCM:113097")
    assert facts.contrast == "coded"


@pytest.mark.parametrize(
    "changes",
    [
        {"KVP": ""},
        {"ConvolutionKernel": None},
        {"RescaleSlope": 0},
        {"DerivationCodeSequence": []},
        {"ImageOrientationPatient": [1, 0, 0]},
        {"ImageType": "ORIGINAL"},
    ],
)
def test_a_value_that_does_not_fit_is_as_if_it_were_not_stated(changes: dict[str, Any]) -> None:
    facts = read(**changes)
    assert decode(encode(facts)) == facts


@settings(max_examples=150, deadline=None)
@given(keyword=st.sampled_from(KEYWORDS), value=st.binary(max_size=24))
def test_hostile_values_end_as_facts(keyword: str, value: bytes) -> None:
    dataset = parsed()
    tag = pydicom.tag.Tag(keyword)
    vr = pydicom.datadict.dictionary_VR(tag)
    dataset._dict[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True)
    facts = facts_of(dataset)
    assert decode(encode(facts)) == facts
