"""Real slices made odd in one way each: the same result on the original slices, or a reason.

The slices are a part of the real GE series; the model of these tests goes by HU alone, so that a
value that is decoded wrong, or lies elsewhere, is another label.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from analysis_kit import files_below, model_card, plan
from numpy.typing import NDArray
from others import dciodvfy_errors
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEGLSNearLossless,
)

from dicomnode.demo.readback import read_segments
from dicomnode.domain.identifiers import derive_uid
from dicomnode.domain.plans import Analysis
from dicomnode.errors import Refusal
from dicomnode.imaging import read_scan
from dicomnode.pipeline import analyze

# The invalid values are the point.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PART = slice(60, 188), slice(20, 148)  # some padding, air, fat, soft tissue and bone
COUNT = 10
PADDING = -2000
CARD = model_card((3.0, 3.0, 3.0))


class ByValue:
    """Finds the liver where soft tissue is, a kidney where fat is, and a hip where bone is."""

    def predict(
        self, image: NDArray[np.float32], progress: object = None, options: object = None
    ) -> NDArray[np.uint8]:
        labels = np.zeros(image.shape, np.uint8)
        for low, label in ((-150, 2), (0, 5), (150, 90)):
            labels[image > low] = label
        return labels


@pytest.fixture(scope="module")
def slices(test_data: Path) -> list[Dataset]:
    found = [
        pydicom.dcmread(BytesIO(data)) for data in files_below(test_data / "crlm-ct-1004/image")
    ]
    found.sort(key=lambda item: float(item.ImagePositionPatient[2]))
    kept = found[14 : 14 + COUNT]
    for item in kept:
        cells = item.pixel_array[PART]
        item.Rows, item.Columns = cells.shape
        item.PixelData = cells.tobytes()
    return kept


def analysis_of(files: list[bytes]) -> Analysis:
    return analyze(files, plan(), predictor=ByValue(), card=CARD)


def planes_of(analysis: Analysis) -> dict[str, NDArray[np.uint8]]:
    """The label map of each slice by its SOP Instance UID."""
    with np.load(BytesIO(analysis.label_map), allow_pickle=False) as arrays:
        return dict(zip(arrays["sop_instance_uids"].tolist(), arrays["labels"], strict=True))


@pytest.fixture(scope="module")
def plain(slices: list[Dataset]) -> dict[str, NDArray[np.uint8]]:
    planes = planes_of(analysis_of([written(item) for item in slices]))
    assert len(planes) == COUNT
    found = np.bincount(np.stack(list(planes.values())).ravel(), minlength=256)
    assert found[[0, 2, 5, 90]].min() > 300
    return planes


def written(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    syntax = dataset.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(
        buffer,
        dataset,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        enforce_file_format=True,
    )
    return buffer.getvalue()


def changed(slices: list[Dataset], change: Callable[[int, Dataset], None]) -> list[bytes]:
    files = []
    for index, item in enumerate(slices):
        own = copy.deepcopy(item)
        change(index, own)
        files.append(written(own))
    return files


def hu_of(item: Dataset) -> NDArray[np.int64]:
    cells = np.frombuffer(item.PixelData, "<i2").reshape(item.Rows, item.Columns)
    return np.where(cells == PADDING, -1024, cells.astype(np.int64) - 1024)


def store(item: Dataset, cells: NDArray[Any], stored: int, *, signed: bool) -> None:
    item.PixelData = cells.astype("<i2" if signed else "<u2", casting="unsafe").tobytes()
    item.BitsStored, item.HighBit = stored, stored - 1
    item.PixelRepresentation = int(signed)
    if "PixelPaddingValue" in item:
        del item.PixelPaddingValue


def setting(**values: object) -> Callable[[int, Dataset], None]:
    def change(_index: int, item: Dataset) -> None:
        for keyword, value in values.items():
            if value is not None:
                setattr(item, keyword, value)
            elif keyword in item:
                delattr(item, keyword)

    return change


def tilted_cosines(index: int, item: Dataset) -> None:
    if index % 3 == 1:
        item.ImageOrientationPatient = [1, 0.0004, 0, -0.0004, 1, 0]


def jittered(index: int, item: Dataset) -> None:
    x, y, z = item.ImagePositionPatient
    item.ImagePositionPatient = [x, y, round(float(z) + 0.02 * (-1) ** index, 3)]


def rescaled(index: int, item: Dataset) -> None:
    """Another slope and intercept for every slice."""
    hu, padding = hu_of(item), np.frombuffer(item.PixelData, "<i2") == PADDING
    slope, intercept = (0.5, -1024 - index) if index % 2 else (1, 100 * index)
    cells = ((hu - intercept) / slope).astype("<i2")
    cells.ravel()[padding] = -30000
    item.PixelData = cells.tobytes()
    item.PixelPaddingValue = -30000
    item.RescaleSlope, item.RescaleIntercept = str(slope), str(intercept)


def overlaid(index: int, item: Dataset) -> None:
    """12 bits unsigned, old overlays in the four above."""
    overlay = np.random.default_rng(index).integers(0, 16, (item.Rows, item.Columns)) << 12
    store(item, (hu_of(item) + 1024).clip(0, 4095) | overlay, 12, signed=False)


def twelve_signed(index: int, item: Dataset) -> None:
    """12 bits with a sign, of which the four bits above know nothing."""
    store(item, hu_of(item).clip(-2048, 2047) & 0x0FFF, 12, signed=True)
    item.RescaleIntercept = "0"


def sixteen_unsigned(_index: int, item: Dataset) -> None:
    store(item, hu_of(item) + 32768, 16, signed=False)
    item.RescaleIntercept = "-32768"


def padded_with_the_other_sign(_index: int, item: Dataset) -> None:
    del item.PixelPaddingValue
    item.add_new(0x00280120, "US", PADDING + 65536)


def undeclared_padding(_index: int, item: Dataset) -> None:
    del item.PixelPaddingValue


def big_endian(_index: int, item: Dataset) -> None:
    item.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    item.PixelData = np.frombuffer(item.PixelData, "<u2").astype(">u2").tobytes()


def in_syntax(syntax: pydicom.uid.UID) -> Callable[[int, Dataset], None]:
    def change(_index: int, item: Dataset) -> None:
        item.file_meta.TransferSyntaxUID = syntax

    return change


def htj2k(_index: int, item: Dataset) -> None:
    cells = np.frombuffer(item.PixelData, "<i2").reshape(item.Rows, item.Columns)
    item.PixelData = encapsulate([bytes(imagecodecs.htj2k_encode(cells))])
    item["PixelData"].VR = "OB"
    item.file_meta.TransferSyntaxUID = HTJ2KLossless


def japanese(_index: int, item: Dataset) -> None:
    item.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    item.PatientName = "Yamada^Tarou=山田^太郎"


def sop_class_in_the_meta_information_only(_index: int, item: Dataset) -> None:
    del item.SOPClassUID


MISSING = setting(
    PatientSex=None, StudyID=None, ReferringPhysicianName=None, PatientBirthDate=None,
    AccessionNumber=None, StudyTime=None, StudyDate=None, SliceThickness=None,
    Manufacturer=None, PositionReferenceIndicator=None,
)  # fmt: skip
CASES: dict[str, Callable[[int, Dataset], None]] = {
    "orientation jitter": tilted_cosines,
    "position jitter of 20 um": jittered,
    "slope and intercept of each slice": rescaled,
    "12 bits unsigned below overlays": overlaid,
    "12 bits signed": twelve_signed,
    "16 bits unsigned": sixteen_unsigned,
    "padding with the other sign": padded_with_the_other_sign,
    "padding that is not declared": undeclared_padding,
    "implicit": in_syntax(ImplicitVRLittleEndian),
    "big endian": big_endian,
    "deflated": in_syntax(DeflatedExplicitVRLittleEndian),
    "HTJ2K": htj2k,
    "missing type 2 attributes": MISSING,
    "no SOP Class in the data set": sop_class_in_the_meta_information_only,
    "invalid values": setting(PatientSex="m", StudyDate="2020.1.1", StudyTime="99", PatientAge="x"),
    "a Japanese name": japanese,
    "an empty character set": setting(SpecificCharacterSet=""),
    "a misspelt character set": setting(SpecificCharacterSet="ISO-IR 100"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_result_on_the_original_slices(
    name: str, slices: list[Dataset], plain: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    files = changed(slices, CASES[name])
    assert_same_result(files, plain, tmp_path)


def assert_same_result(
    files: list[bytes], plain: dict[str, NDArray[np.uint8]], folder: Path
) -> Analysis:
    analysis = analysis_of(files)

    planes = planes_of(analysis)
    assert planes.keys() == plain.keys()
    for uid, labels in planes.items():
        assert np.array_equal(labels, plain[uid])
    for item in analysis.results:
        path = folder / f"{item.kind}.dcm"
        path.write_bytes(item.data)
        assert dciodvfy_errors(path, all_frames=True) == []
    uids = list(planes)
    labels = np.stack([planes[uid] for uid in uids])
    assert np.array_equal(read_segments(folder / "seg.dcm", uids, labels.shape), labels)
    source = pydicom.dcmread(BytesIO(files[0]))
    for item in analysis.results:
        result = pydicom.dcmread(BytesIO(item.data))
        assert str(result.PatientName) == str(source.PatientName)
        assert result.PatientID == source.PatientID
        assert result.StudyInstanceUID == source.StudyInstanceUID
    return analysis


def test_lossy_slices_are_analysed_and_flagged(slices: list[Dataset]) -> None:
    def near_lossless(_index: int, item: Dataset) -> None:
        cells = (hu_of(item) + 1024).clip(0, 4095).astype("<u2")
        store(item, cells, 12, signed=False)
        item.PixelData = encapsulate([bytes(imagecodecs.jpegls_encode(cells, level=2))])
        item["PixelData"].VR = "OB"
        item.file_meta.TransferSyntaxUID = JPEGLSNearLossless

    files = changed(slices, near_lossless)
    analysis = analysis_of(files)
    assert "The images went through lossy compression." in analysis.findings
    seg, report = (pydicom.dcmread(BytesIO(item.data)) for item in analysis.results)
    assert seg.LossyImageCompression == "01"
    said = [str(item.value) for item in report.iterall() if item.keyword == "TextValue"]
    assert any("lossy compression" in text and "no lossy" not in text for text in said)
    exact = read_scan([written(item) for item in slices]).volume
    assert np.abs(read_scan(files).volume.astype(int) - exact).max() <= 2


def test_what_belongs_to_no_volume_is_left_out_and_said(
    slices: list[Dataset], test_data: Path, tmp_path: Path
) -> None:
    def other(index: int, item: Dataset) -> None:
        if index == 0:
            item.FrameOfReferenceUID = "1.2.3"
        if index == COUNT - 1:
            item.PixelSpacing = [1, 1]

    files = changed(slices, other)
    localizer = pydicom.dcmread(test_data / "odd/philips-localizer.dcm")
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "IssuerOfPatientID",
                    "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber"):  # fmt: skip
        if keyword in slices[0]:
            localizer[keyword] = slices[0][keyword]
        elif keyword in localizer:
            del localizer[keyword]
    assert localizer.SOPClassUID == CTImageStorage
    screen = (test_data / "odd/philips-dose-screen.dcm").read_bytes()
    alone = planes_of(analysis_of(files[1:-1]))
    analysis = assert_same_result([*files, written(localizer), screen], alone, tmp_path)
    assert analysis.findings[:3] == (
        "2 images were left out: 1 NOT_A_VOLUME, 1 NOT_CT.",
        "1 images of other Frames of Reference were left out.",
        "1 images of other matrices or pixel spacings were left out.",
    )
    report = pydicom.dcmread(BytesIO(analysis.results[1].data))
    assert "(8 of 12 slices)" in report.SeriesDescription


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("AcquisitionNumber", (1, 2)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("NominalPercentageOfCardiacPhase", (30, 75)),
        ("KVP", ("80", "140")),
        ("ConvolutionKernel", ("STANDARD", "BONE")),
    ],
)
def test_time_points_energies_and_kernels_are_never_mixed(
    keyword: str, values: tuple[object, ...], slices: list[Dataset]
) -> None:
    first = changed(slices, setting(**{keyword: values[0]}))
    second = [pydicom.dcmread(BytesIO(data)) for data in first]
    for item in second:
        setattr(item, keyword, values[1])
        item.SOPInstanceUID = derive_uid("again", item.SOPInstanceUID)
        item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
    again = [written(item) for item in second]
    with pytest.raises(Refusal) as caught:
        read_scan([*first, *again])
    assert caught.value.code == "DUPLICATE_POSITIONS"
    scan = read_scan([*first, *again[:3]])
    assert set(scan.sop_instance_uids) == {item.SOPInstanceUID for item in slices}
    assert "3 images of another" in scan.findings[0]


def test_real_padding_is_no_tissue(slices: list[Dataset]) -> None:
    scan = read_scan([written(item) for item in slices])
    cells = np.stack([np.frombuffer(item.PixelData, "<i2") for item in slices])
    cells = cells.reshape(scan.volume.shape)
    assert (cells == PADDING).any()
    assert (scan.volume[cells == PADDING] == -1024).all()
    assert scan.valid is not None
    assert np.array_equal(scan.valid, cells != PADDING), "all of it reaches the edge"
