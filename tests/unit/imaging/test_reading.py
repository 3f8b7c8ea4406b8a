"""A series becomes one volume in space, or is refused with a code and a sentence."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest

from dicomnode.demo.series import SeriesOptions, Subject, write_series
from dicomnode.domain.identifiers import derive_uid
from dicomnode.errors import Refusal
from dicomnode.imaging import read_scan

AFFINE = np.array([[-1.5, 0, 0, 20], [0, -2.0, 0, 30], [0, 0, 2.5, -40], [0, 0, 0, 1]])
GENERATOR = np.random.default_rng(7)
HU = GENERATOR.integers(-1000, 1500, (12, 10, 12)).astype(np.int16)
HU[:3] = -1000

Change = Callable[[pydicom.Dataset], Any]


def series(affine: Any = AFFINE, hu: Any = HU, **options: Any) -> list[bytes]:
    return write_series(hu, affine, SeriesOptions(**options))


def changed(files: list[bytes], change: Change, only: slice = slice(None)) -> list[bytes]:
    """Apply `change` to the data sets of `files[only]`, which are in the order of their slices."""
    datasets = sorted(
        (pydicom.dcmread(BytesIO(data)) for data in files), key=lambda item: item.InstanceNumber
    )
    for dataset in datasets[only]:
        change(dataset)
    written = []
    for dataset in datasets:
        buffer = BytesIO()
        dataset.save_as(buffer)
        written.append(buffer.getvalue())
    return written


def setting(**values: object) -> Change:
    def change(dataset: pydicom.Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return change


def moved(offset: float) -> Change:
    def change(dataset: pydicom.Dataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + offset]

    return change


def renamed(prefix: str) -> Change:
    def change(dataset: pydicom.Dataset) -> None:
        dataset.SOPInstanceUID = derive_uid(prefix, dataset.SOPInstanceUID)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    return change


def coded(value: str, scheme: str) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    return item


def mapped(unit: str) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.MeasurementUnitsCodeSequence = [coded(unit, "UCUM")]
    return item


def refused(files: list[bytes]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_scan(files)
    return caught.value


def test_voxels_and_affine_of_a_shuffled_series() -> None:
    scan = read_scan(series())

    assert scan.volume.dtype == np.int16
    assert np.array_equal(scan.volume, HU.transpose(2, 1, 0))
    assert np.allclose(
        scan.affine, [[0, 0, 1.5, -20], [0, 2, 0, -30], [2.5, 0, 0, -40], [0, 0, 0, 1]]
    )
    assert scan.spacing_mm == pytest.approx((2.5, 2.0, 1.5))
    assert scan.voxel_volumes_mm3 == pytest.approx(np.full(12, 7.5))
    assert scan.is_regular
    assert scan.findings == ()
    assert scan.valid is None
    assert not scan.lossy
    assert scan.total_instances == 12
    numbers = [source.fields["InstanceNumber"] for source in scan.sources]
    assert numbers == [(str(number),) for number in range(1, 13)]
    assert scan.header.InstanceNumber == 1
    assert "PixelData" not in scan.header


def test_instance_number_patient_position_and_slice_location_decide_nothing() -> None:
    files = series()
    plain = read_scan(files)

    def lie(dataset: pydicom.Dataset) -> None:
        dataset.InstanceNumber = 50 - dataset.InstanceNumber
        dataset.SliceLocation = str(dataset.InstanceNumber)
        dataset.PatientPosition = "FFDR"

    lied = read_scan(changed(files, lie))
    assert np.array_equal(lied.affine, plain.affine)
    assert np.array_equal(lied.volume, plain.volume)


def test_the_digest_names_pixels_geometry_and_instances() -> None:
    files = series()
    digest = read_scan(files).digest
    assert read_scan(files[::-1]).digest == digest
    assert read_scan(series(seed=1)).digest != digest
    other = HU.copy()
    other[5, 5, 5] += 1
    assert read_scan(series(hu=other)).digest != digest
    assert read_scan(changed(files, moved(0.25))).digest != digest


def test_a_repeated_instance_counts_once() -> None:
    files = series()
    scan = read_scan([*files, files[3], files[3]])
    assert scan.total_instances == 12
    assert scan.findings == ("2 repeated instances were ignored.",)


def test_one_uid_with_two_images_is_refused() -> None:
    files = series()
    other = changed(files, setting(PixelData=bytes(240)), slice(0, 1))
    assert refused([*files, other[0]]).code == "CONFLICTING_INSTANCES"


def test_localizers_and_other_modalities_are_left_out_and_said() -> None:
    files = series()
    localizer = changed(files, setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), slice(0, 1))
    scan = read_scan([*files, changed(localizer, renamed("l"))[0]])
    assert scan.volume.shape[0] == 12
    assert scan.total_instances == 13
    assert scan.findings == ("1 images were left out: 1 NOT_A_VOLUME.",)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("MISSING_IDENTIFIERS", setting(StudyInstanceUID="", SeriesInstanceUID=None)),
        ("MISSING_IDENTIFIERS", setting(SOPInstanceUID=None)),
        ("NOT_CT", setting(Modality="MR")),
        ("NOT_CT", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")),
        ("BAD_FRAMES", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1")),
        ("NOT_A_VOLUME", setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
        ("DERIVED_MAP", setting(ImageType=["DERIVED", "PRIMARY", "AXIAL", "DUAL", "VNC"])),
        ("DERIVED_MAP", setting(ImageType=["DERIVED", "SECONDARY", "MIP"])),
        ("DERIVED_MAP", setting(ImageType=["DERIVED", "PRIMARY", "AXIAL", "IODINE_MAP"])),
        ("DERIVED_MAP", setting(ImageType=["DERIVED", "PRIMARY", "AXIAL", "VIRTUAL NON CONTRAST"])),
        ("DERIVED_MAP", setting(DerivationCodeSequence=[coded("113078", "DCM")])),
        ("DERIVED_MAP", setting(VolumeBasedCalculationTechnique="MAX_IP")),
        ("DERIVED_MAP", setting(PixelPresentation="COLOR")),
        ("DERIVED_MAP", setting(SeriesDescription="Iodine Map 3.0")),
        ("MONOENERGETIC", setting(ImageType=["DERIVED", "PRIMARY", "AXIAL", "VMI"])),
        ("MONOENERGETIC", setting(SeriesDescription="Mono+ 70 keV")),
        ("NOT_HU", setting(RealWorldValueMappingSequence=[mapped("mg/cm3")])),
        ("NOT_HU", setting(RescaleSlope=None)),
        ("NOT_HU", setting(RescaleIntercept="")),
        ("NOT_HU", setting(RescaleSlope="0")),
        ("NOT_HU", setting(RescaleType="US")),
        ("NO_FRAME_OF_REFERENCE", setting(FrameOfReferenceUID=None)),
        ("NO_FRAME_OF_REFERENCE", setting(FrameOfReferenceUID="")),
        ("NO_POSITION", setting(ImagePositionPatient=None)),
        ("NO_POSITION", setting(ImageOrientationPatient=[1, 0, 0, 1, 0, 0])),
        ("NO_POSITION", setting(ImageOrientationPatient=[0, 0, 0, 0, 1, 0])),
        ("NO_POSITION", setting(PixelSpacing=["0", "1"])),
    ],
)
def test_a_whole_series_is_refused(code: str, change: Change) -> None:
    refusal = refused(changed(series(), change))
    assert refusal.code == code
    assert refusal.detail.endswith(".")
    assert "PHANTOM" not in str(refusal)


def test_monoenergetic_images_by_request_and_their_energy_is_said() -> None:
    files = changed(series(), setting(SeriesDescription="Thorax Mono+ 70 keV"))
    scan = read_scan(files, monoenergetic=True)
    assert any("monoenergetic images at 70 keV" in said for said in scan.findings)
    unknown = changed(series(), setting(ImageType=["DERIVED", "PRIMARY", "AXIAL", "VMI"]))
    scan = read_scan(unknown, monoenergetic=True)
    assert any("at an energy that is not stated" in said for said in scan.findings)
    mixed = changed(files, setting(SeriesDescription="Thorax Mono+ 40 keV"), slice(0, 3))
    with pytest.raises(Refusal, match="several energies"):
        read_scan(mixed, monoenergetic=True)
    assert not any("monoenergetic" in said for said in read_scan(series()).findings)


def test_missing_identifiers_are_named() -> None:
    detail = refused(changed(series(), setting(SeriesInstanceUID="", StudyInstanceUID=""))).detail
    assert "StudyInstanceUID, SeriesInstanceUID" in detail


def test_a_blank_patient_id_is_said_and_left_blank() -> None:
    scan = read_scan(changed(series(), setting(PatientID="")))
    assert scan.findings == ("The source has no Patient ID, and so the results have none.",)
    assert scan.header.PatientID == ""


def test_a_malformed_uid_is_refused() -> None:
    files = changed(series(), setting(SeriesInstanceUID="1.2.3/../../etc"))
    assert refused(files).code == "INVALID_IDENTIFIERS"


@pytest.mark.parametrize(
    "change",
    [setting(PatientID="OTHER"), setting(StudyInstanceUID="1.2.3"), setting(PatientBirthDate="")],
)
def test_two_patients_or_studies_are_never_one_series(change: Change) -> None:
    assert refused(changed(series(), change, slice(3, 4))).code == "MIXED_SERIES"


def test_a_blank_sop_class_is_taken_from_the_file_meta_information() -> None:
    assert read_scan(changed(series(), setting(SOPClassUID=""))).volume.shape == (12, 10, 12)


def test_ordinary_dual_energy_image_types_are_analysed() -> None:
    kind = ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 SPI", "STD", "SNRG"]
    assert len(read_scan(changed(series(), setting(ImageType=kind))).sources) == 12


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("MIXED_FRAMES_OF_REFERENCE", setting(FrameOfReferenceUID="1.2.3")),
        ("MIXED_ORIENTATION", setting(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])),
        ("MIXED_MATRIX", setting(PixelSpacing=["1", "1"])),
        ("MIXED_CONTENT", setting(RescaleType="US")),
    ],
)
def test_halves_that_do_not_fit_are_refused_and_a_few_odd_ones_left_out(
    code: str, change: Change
) -> None:
    files = series()
    assert refused(changed(files, change, slice(0, 6))).code == code
    scan = read_scan(changed(files, change, slice(0, 2)))
    assert len(scan.sources) == 10
    assert scan.total_instances == 12
    assert len(scan.findings) == 1


def test_orientation_jitter_is_harmonised_and_positions_kept() -> None:
    files = changed(series(), setting(ImageOrientationPatient=[1, 0.0005, 0, 0, 1, 0]), slice(4, 5))
    scan = read_scan(files)
    assert len(scan.sources) == 12
    assert scan.orientation == pytest.approx((1, 0, 0, 0, 1, 0), abs=1e-3)


@pytest.mark.parametrize(
    "keyword", ["AcquisitionNumber", "TemporalPositionIdentifier", "TriggerTime"]
)
def test_a_second_time_point_is_never_mixed_in(keyword: str) -> None:
    files = series()
    again = changed(changed(files, setting(**{keyword: 2})), renamed("again"))
    refusal = refused([*files, *again])
    assert refusal.code == "DUPLICATE_POSITIONS"
    assert "24 slices lie at 12 positions" in refusal.detail
    scan = read_scan([*files, *again[:3]])
    assert len(scan.sources) == 12
    assert "at the same positions were left out" in scan.findings[0]


def test_duplicates_that_nothing_tells_apart_are_refused() -> None:
    files = series()
    assert refused([*files, changed(files, renamed("x"))[0]]).code == "DUPLICATE_POSITIONS"


def test_a_missing_slice_is_said_and_its_neighbours_are_deeper() -> None:
    files = changed(series(), setting())
    depth = {int(pydicom.dcmread(BytesIO(data)).InstanceNumber): data for data in files}
    scan = read_scan([data for number, data in depth.items() if number != 5])
    assert not scan.is_regular
    assert "range from 2.5 to 5 mm" in scan.findings[0]
    assert sorted(set(scan.voxel_volumes_mm3.round(3))) == [7.5, 11.25]
    assert scan.voxel_volumes_mm3.sum() == pytest.approx(12 * 7.5)


def test_tilt_is_said_and_jitter_accepted() -> None:
    tilted = read_scan(series(tilt_degrees=8))
    assert "tilted by 8.0 degrees" in tilted.findings[0]
    assert not tilted.is_regular
    assert tilted.voxel_volumes_mm3 == pytest.approx(np.full(12, 7.5))
    assert read_scan(series(jitter_mm=0.02)).is_regular


def test_what_is_no_dicom_is_refused() -> None:
    assert refused([]).code == "NO_INSTANCES"
    for junk in (b"", b"hello", bytes(500), b"\0" * 128 + b"DICM" + b"\xff" * 50):
        assert refused([*series(), junk]).code == "UNPARSEABLE"


def test_a_file_without_preamble_is_read() -> None:
    files = [data[132:] for data in series()]
    assert len(read_scan(files).sources) == 12


def test_padding_reaches_the_scan() -> None:
    hu = HU.copy()
    hu[:2] = -1024
    scan = read_scan(changed(series(hu=hu), lambda item: item.add_new(0x00280120, "US", 0)))
    assert scan.valid is not None
    assert not scan.valid[:, :, :2].any()
    assert scan.valid[:, :, 2:].all()


def test_no_name_or_id_of_a_patient_is_logged_or_warned(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    subject = Subject(patient_name="SECRET^NAME", patient_id="SECRET-ID")
    files = changed(
        series(subject=subject),
        setting(
            PatientBirthDate="SECRET-DATE", StudyDate="SECRET", SpecificCharacterSet="nonsense"
        ),
    )
    recwarn.clear()
    caplog.clear()
    read_scan(files)
    assert "SECRET" not in caplog.text
    assert not [item for item in recwarn if "SECRET" in str(item.message)]
