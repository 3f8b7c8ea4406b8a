"""MR series as volumes: signal instead of Hounsfield units, and what cannot be one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mr_series import mr_series, signal

from dicomnode.demo.series import write_series
from dicomnode.errors import Refusal
from dicomnode.imaging import read_scan
from dicomnode.imaging.content import check_content
from dicomnode.imaging.regular import regular_grid
from dicomnode.scan import Scan

SIGNAL = signal()


def read(**changes: Any) -> Scan:
    return read_scan(mr_series(SIGNAL, **changes), modality="MR")


def refused(**changes: Any) -> str:
    with pytest.raises(Refusal) as caught:
        read(**changes)
    return caught.value.code


def test_the_signal_is_read_as_it_is_stored() -> None:
    scan = read()
    assert scan.modality == "MR"
    assert scan.empty_value == 0
    assert scan.valid is None
    np.testing.assert_array_equal(scan.volume, SIGNAL.transpose(2, 1, 0))


def test_a_scale_in_the_header_is_applied() -> None:
    scan = read(RescaleSlope="0.5", RescaleIntercept="3", RescaleType="US")
    np.testing.assert_array_equal(scan.volume, np.rint(SIGNAL.transpose(2, 1, 0) * 0.5 + 3))


def test_padding_is_no_signal_and_not_valid() -> None:
    scan = read(PixelPaddingValue=0)
    assert scan.valid is not None
    assert not scan.valid[0].any()
    assert (scan.volume[~scan.valid] == 0).all()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"RescaleSlope": "50", "RescaleIntercept": "0"}, "VALUES_OUT_OF_RANGE"),
        ({"RescaleSlope": "0.001", "RescaleIntercept": "0"}, "VALUES_OUT_OF_RANGE"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "DERIVED_MAP"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "DERIVED_MAP"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "M"]}, "NOT_A_VOLUME"),
        ({"Modality": "PT"}, "NOT_MR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1"}, "NOT_MR"),
        ({"FrameOfReferenceUID": None}, "NO_FRAME_OF_REFERENCE"),
    ],
)
def test_what_is_no_mr_volume_is_refused(changes: dict[str, Any], code: str) -> None:
    assert refused(**changes) == code


@pytest.mark.parametrize("kind", ["WATER", "FAT", "IN"])
def test_images_of_dixon_are_images(kind: str) -> None:
    assert read(ImageType=["DERIVED", "PRIMARY", kind]).volume.any()


def test_ct_is_no_mr_and_mr_no_ct() -> None:
    with pytest.raises(Refusal) as caught:
        read_scan(mr_series(SIGNAL))
    assert caught.value.code == "NOT_CT"
    hu = np.full((8, 9, 6), 40, np.int16)
    with pytest.raises(Refusal) as caught:
        read_scan(write_series(hu, np.diag([-1.0, -1.0, 2.0, 1.0])), modality="MR")
    assert caught.value.code == "NOT_MR"


def test_what_hounsfield_units_tell_is_not_asked_of_mr() -> None:
    assert check_content(read()) == ()
    (finding,) = check_content(read(PatientOrientation=["R", "P"]))
    assert finding.code == "ORIENTATION_CONTRADICTS"


def test_beside_an_irregular_stack_is_no_signal() -> None:
    files = mr_series(SIGNAL)
    scan = read_scan([files[n] for n in range(len(files)) if n != 3], modality="MR")
    grid = regular_grid(scan)
    assert grid.volume.min() >= 0
