"""What is no CT in Hounsfield units is known by each of its signs alone; what is, has none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.domain.images import ImageFacts
from dicomnode.domain.maps import DERIVED_MAP, NOT_A_VOLUME, NOT_HU, energy, signs
from dicomnode.instances.image_facts import facts_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

CT = ImageFacts(
    image_type=("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM7 SPI"),
    rescaled=True,
    rescale_type="HU",
    photometric="MONOCHROME2",
    description="Abdomen 1.0 Br40",
)


def codes(**changes: Any) -> list[str]:
    return [sign.code for sign in signs(replace(CT, **changes))]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rescale_type": ""},
        {"image_type": ("ORIGINAL", "PRIMARY", "AXIAL")},
        {"image_type": ("ORIGINAL", "SECONDARY", "AXIAL", "HELIX")},
        {"image_type": ("DERIVED", "CT_SOM5 SPI", "PRIMARY", "AXIAL")},  # a Siemens PET/CT
        {"image_type": ("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM7 SPI DUAL", "STD", "SNRG")},
        {"image_type": ("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM10 DET3D", "T1", "CONVCT")},
        {"image_type": ("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE")},  # GE
        {"image_type": ("DERIVED", "SECONDARY", "MPR", "CSA MPR", "CSAPARALLEL")},
        {"image_type": ("DERIVED", "PRIMARY", "AXIAL", "JP2K LOSSY 6:1")},
        {"image_type": ("ORIGINAL", "PRIMARY", "AXIAL", "ADD")},
        {"image_type": ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")},
        {"units": ("[hnsf'U]",)},
        {"derivation_codes": ("DCM:113040", "DCM:113072", "DCM:113085", "DCM:113097")},
        {"calculation_technique": "MPR", "volumetric_properties": "VOLUME"},
        {"pixel_presentation": "MONOCHROME", "multienergy": True},
        {"description": "LOW DOSE CHEST 1.0"},
        {"description": "L-Spine post fusion, coronal"},
        {"description": "Thorax nativ, Wasser oral"},
        {"description": "CT PERFUSION PROTOCOL native head"},
        {"description": "Simple mips-free spleen", "protocol": "Liver VNC"},
        {"study_description": "CT MIP Angio", "protocol": "DE_Iodine_Map"},
    ],
)  # fmt: skip
def test_ct_in_hounsfield_units_has_no_sign(changes: dict[str, Any]) -> None:
    assert codes(**changes) == []
    assert energy(replace(CT, **changes)) is None


@pytest.mark.parametrize("unit", ["HU_MOD", "US", "MGML", "Z_EFF", "ED", "EDW", "PCT"])
def test_rescale_types_that_are_not_hu(unit: str) -> None:
    assert codes(rescale_type=unit) == [NOT_HU]


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (NOT_HU, {"rescaled": False}),
        (NOT_HU, {"units": ("mg/cm3",)}),
        (NOT_HU, {"units": ("[hnsf'U]", "1")}),
        (NOT_A_VOLUME, {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}),
        (NOT_A_VOLUME, {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP")}),
        (NOT_A_VOLUME, {"description": "Topogramm 0.6 T20f"}),
        # Multi-energy CT, PS3.3 C.8.2.1.1.1
        (DERIVED_MAP, {"image_type": ("DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC", "IODINE")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "PRIMARY", "AXIAL", "MAT_REMOVED")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "PRIMARY", "AXIAL", "MAT_FRACTIONAL")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "PRIMARY", "AXIAL", "MAT_MODIFIED")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "PRIMARY", "AXIAL", "ELECTRON_DENSITY")}),
        # Words of the manufacturers
        (DERIVED_MAP, {"image_type": ("DERIVED", "SECONDARY", "AXIAL", "DE", "VNC")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "SECONDARY", "AXIAL", "IODINE(WATER)")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "SECONDARY", "AXIAL", "Z EFFECTIVE")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "SECONDARY", "PROJECTION IMAGE", "CSA MIP")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "SECONDARY", "REFORMATTED", "MAXIMUM")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "PRIMARY", "PERFUSION", "RCBF")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "SECONDARY", "SUBTRACTION")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}),
        (DERIVED_MAP, {"image_type": ("DERIVED", "SECONDARY", "DOSE_INFO")}),
        # Coded
        (DERIVED_MAP, {"derivation_codes": ("DCM:113078",)}),
        (DERIVED_MAP, {"derivation_codes": ("DCM:113062",)}),
        (DERIVED_MAP, {"derivation_codes": ("DCM:129104",)}),
        (DERIVED_MAP, {"derivation_codes": ("DCM:113073",)}),
        (DERIVED_MAP, {"calculation_technique": "MAX_IP"}),
        (DERIVED_MAP, {"calculation_technique": "VOLUME_RENDER"}),
        (DERIVED_MAP, {"volumetric_properties": "DISTORTED"}),
        (DERIVED_MAP, {"pixel_presentation": "COLOR"}),
        (DERIVED_MAP, {"photometric": "RGB"}),
        (DERIVED_MAP, {"photometric": "PALETTE COLOR"}),
        # In words, where nothing else says it
        (DERIVED_MAP, {"description": "Iodine Map 1.5"}),
        (DERIVED_MAP, {"description": "DE_Abdomen_VNC 3.0"}),
        (DERIVED_MAP, {"description": "GSI Water(Iodine) 1.25"}),
        (DERIVED_MAP, {"description": "Z Effective [SBI]"}),
        (DERIVED_MAP, {"description": "Eff-Z 2.0"}),
        (DERIVED_MAP, {"description": "Electron Density"}),
        (DERIVED_MAP, {"description": "Virtual Non-Contrast"}),
        (DERIVED_MAP, {"description": "Calcium Suppressed 25"}),
        (DERIVED_MAP, {"description": "Thorax MIP 8.0"}),
        (DERIVED_MAP, {"description": "MinIP lung"}),
        (DERIVED_MAP, {"description": "PerfMap"}),
        (DERIVED_MAP, {"description": "CBF"}),
        (DERIVED_MAP, {"description": "Dose Report"}),
        (DERIVED_MAP, {"derivation": "Subtraction of series 4 from series 5"}),
    ],
)  # fmt: skip
def test_each_sign_is_enough(code: str, changes: dict[str, Any]) -> None:
    found = signs(replace(CT, **changes))
    assert found
    assert found[0].code == code
    assert all(sign.says for sign in found)


def test_an_iodine_map_is_known_by_many_signs() -> None:
    found = codes(
        image_type=("DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"),
        rescale_type="MGML",
        units=("mg/mL",),
        derivation_codes=("DCM:113076",),
        pixel_presentation="COLOR",
        description="Iodine",
    )
    assert len(found) == 6
    assert found[0] == DERIVED_MAP  # says more than that the unit is another one


@pytest.mark.parametrize(
    ("kev", "changes"),
    [
        (70.0, {"kev": 70.0}),
        (None, {"image_type": ("DERIVED", "PRIMARY", "AXIAL", "VMI")}),
        (70.0, {"image_type": ("DERIVED", "PRIMARY", "AXIAL", "VMI", "70KEV")}),
        (40.0, {"image_type": ("DERIVED", "SECONDARY", "AXIAL", "MONOE_40KEV")}),
        (65.0, {"description": "Abdomen Mono+ 65 keV"}),
        (40.0, {"description": "MonoE 40keV [SBI]"}),
        (55.0, {"description": "GSI 55 keV 1.25"}),
        (50.0, {"description": "Monoenergetic Plus 50_keV"}),
        (None, {"description": "Thorax VMI"}),
        (70.0, {"derivation": "Virtual monoenergetic image, 70 keV"}),
    ],
)
def test_virtual_monoenergetic_images(kev: float | None, changes: dict[str, Any]) -> None:
    image = replace(CT, **changes)
    found = energy(image)
    assert found is not None
    assert found.kev == kev
    assert signs(image) == ()


@pytest.mark.parametrize("text", ["Thorax 120 kV", "Monophasic liver", "Monochrome", "7000 keVin"])
def test_no_energy_where_none_is_meant(text: str) -> None:
    assert energy(replace(CT, description=text)) is None


@given(st.text(max_size=64), st.lists(st.text(max_size=16), max_size=6).map(tuple))
def test_any_text_has_an_answer(text: str, kind: tuple[str, ...]) -> None:
    image = replace(CT, description=text, image_type=kind)
    assert signs(image) == signs(image)
    energy(image)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("crlm-ct-1004/image", None),
        ("totalsegmentator/example_ct_dicom", None),
        ("geometry/ge-hispeed-tilt-uneven", None),
        ("geometry/gantrytilting/001", None),
        ("geometry/notavolume/001", None),
        ("geometry/sliceincrement", None),
        ("transfer-syntaxes", None),
        ("odd/no-modality.dcm", None),
        ("odd/philips-localizer.dcm", NOT_A_VOLUME),
        ("odd/philips-dose-screen.dcm", DERIVED_MAP),
        ("odd/enhanced-ct-2-frames.dcm", DERIVED_MAP),
        ("odd/legacy-converted-enhanced-ct.dcm", NOT_HU),  # Rescale Type US, unspecified
    ],
)
def test_real_files(test_data: Path, name: str, expected: str | None) -> None:
    path = test_data / name
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if not file.is_file() or file.suffix in (".md", ".txt"):
            continue
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        if "SeriesInstanceUID" not in dataset and "ImageType" not in dataset:
            continue
        found = signs(facts_of(dataset))
        assert (found[0].code if found else None) == expected, file
