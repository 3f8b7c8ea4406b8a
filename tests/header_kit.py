"""Headers of many kinds, encoded, to be read in more than one way."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from small_ct import encoded, instance

KEY = b"k" * 32
LITTLE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def nested(*, undefined: bool) -> Dataset:
    item = Dataset()
    item.CodeValue = "1"
    item.CodeMeaning = "x"
    inner = Dataset()
    inner.ConceptNameCodeSequence = Sequence([item])
    dataset = instance(
        RequestAttributesSequence=Sequence([inner, item]),
        ProcedureCodeSequence=Sequence([item]),
        ContributingEquipmentSequence=Sequence([item]),
    )
    if undefined:
        for element in dataset.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
                for one in element.value:
                    one.is_undefined_length_sequence_item = True
    return dataset


DATASETS = {
    f"{name} {UID(syntax).name}": (encoded(dataset, syntax), str(syntax))
    for syntax in LITTLE
    for name, dataset in {
        "plain": instance(),
        "ascii": instance(PatientName="A^B"),
        "plain and rich": instance(
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            StudyDate="20260102",
            Manufacturer="Maker",
            ConvolutionKernel="B30f",
            KVP="120",
            PatientPosition="HFS",
            InstanceNumber=7,
            AcquisitionNumber=2,
            GantryDetectorTilt="0",
            RescaleType="HU",
        ),
        "nested": nested(undefined=False),
        "undefined": nested(undefined=True),
        "no pixels": instance(PixelData=None),
        "long": instance(RedPaletteColorLookupTableData=bytes(20_000)),
    }.items()
}


def real_files(test_data: Path) -> list[Path]:
    """Return files of scanners and of test suites, many kinds of headers among them."""
    return [
        path
        for folder in ("transfer-syntaxes", "odd", "geometry", "crlm-ct-1004/image")
        for path in sorted((test_data / folder).rglob("*"))
        if path.is_file() and ("crlm" not in folder or path.name.endswith("5.dcm"))
    ]
