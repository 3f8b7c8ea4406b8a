"""Presentation Contexts with real senders: what is proposed, what is chosen, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from nodes import Node
from peers import Dcmtk
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1, generate_uid
from pynetdicom import AE
from scu import Wire, scu, store
from small_ct import CT, encoded, instance

from dicomnode.network.contexts import TRANSFER_SYNTAXES
from dicomnode.network.sockets import VERIFICATION

PRIVATE = "1.3.12.2.1107.5.9.1"  # Siemens CSA Non-Image Storage
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("receiver"))
    try:
        node.start("receive")
        yield node
        node.stop()
    finally:
        node.close()


def kept(node: Node, sop_instance_uid: str) -> pydicom.Dataset:
    (path,) = [path for path in node.files() if path.name == f"{sop_instance_uid}.dcm"]
    return pydicom.dcmread(path)


def renamed(path: Path) -> tuple[str, bytes]:
    """A real file under a SOP Instance UID of its own."""
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    buffer = BytesIO()
    dataset.save_as(buffer)
    return str(dataset.SOPInstanceUID), buffer.getvalue()


def test_real_images_of_every_transfer_syntax_are_kept_as_they_come(
    receiver: Node, test_data: Path
) -> None:
    paths = [path for path in (test_data / "transfer-syntaxes").iterdir() if "_" in path.name]
    assert len(paths) == 15
    for path in paths:
        uid, data = renamed(path)
        wire = Wire.of_file(data)
        assert wire.transfer_syntax_uid == path.name.rsplit("_", 1)[1].removesuffix(".dcm")
        assert store(receiver.port, wire) == [0x0000], path.name
        (file,) = [one for one in receiver.files() if one.name == f"{uid}.dcm"]
        assert file.read_bytes().endswith(wire.data), "not a byte was changed"
        assert kept(receiver, uid).file_meta.TransferSyntaxUID == wire.transfer_syntax_uid


def test_every_transfer_syntax_is_accepted_by_itself(receiver: Node) -> None:
    """HTJ2K, JPEG XL, video: no file of each is at hand, and the context is what counts."""
    for some in (TRANSFER_SYNTAXES[:60], TRANSFER_SYNTAXES[60:]):
        ae = AE(ae_title="MODALITY")
        for syntax in some:
            ae.add_requested_context(CT, syntax)
        ae.add_requested_context(VERIFICATION)
        association = ae.associate("127.0.0.1", receiver.port, ae_title="DICOMNODE")
        accepted = [str(context.transfer_syntax[0]) for context in association.accepted_contexts]
        assert accepted[:-1] == list(some)
        association.release()


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("-xs", "JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70"),
        ("-xt", "JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80"),
        ("-xv", "JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90"),
        ("-xw", "JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91"),
        ("-xr", "RLELosslessTransferSyntax_1.2.840.10008.1.2.5"),
        ("-xd", "DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99"),
        ("-xb", "BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2"),
        ("-xi", "LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2"),
    ],
)
def test_storescu_with_its_options(
    receiver: Node, dcmtk: Dcmtk, test_data: Path, tmp_path: Path, option: str, name: str
) -> None:
    uid, data = renamed(test_data / "transfer-syntaxes" / f"CTImage.dcm_{name}.dcm")
    path = tmp_path / "image.dcm"
    path.write_bytes(data)
    dcmtk.storescu(receiver.port, path, options=[option])
    found = kept(receiver, uid)
    if option not in ("-xb", "-xi"):
        # Compressed images come as they are; uncompressed ones storescu turns into what we prefer.
        assert found.file_meta.TransferSyntaxUID == name.rsplit("_", 1)[1]
    assert found.Rows == 512


@pytest.mark.peer("dcmtk", "dcmsend")
def test_dcmsend_sends_a_folder_of_all_syntaxes(
    receiver: Node, dcmtk: Dcmtk, test_data: Path, tmp_path: Path
) -> None:
    sent: dict[str, str] = {}
    for number, path in enumerate(sorted((test_data / "transfer-syntaxes").iterdir())):
        uid, data = renamed(path)
        (tmp_path / f"{number}.dcm").write_bytes(data)
        sent[uid] = str(pydicom.dcmread(BytesIO(data)).file_meta.TransferSyntaxUID)
    common = ["-aet", "MODALITY", "-aec", "DICOMNODE", "--decompress-never", "+sd", "+r"]
    done = dcmtk.run("dcmsend", "-v", *common, "127.0.0.1", receiver.port, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in receiver.files()}
    assert {f"{uid}.dcm" for uid in sent} <= names
    for uid, syntax in sent.items():
        if syntax.startswith("1.2.840.10008.1.2.4") or syntax.endswith(".5"):
            assert kept(receiver, uid).file_meta.TransferSyntaxUID == syntax


def test_of_several_in_one_context_nothing_lossy_is_chosen(receiver: Node) -> None:
    ae = AE(ae_title="MODALITY")
    ae.add_requested_context(CT, ["1.2.840.10008.1.2.4.50", JPEGLosslessSV1])
    ae.add_requested_context(CT, ["1.2.840.10008.1.2.4.91", ExplicitVRLittleEndian])
    association = ae.associate("127.0.0.1", receiver.port, ae_title="DICOMNODE")
    accepted = [context.transfer_syntax[0] for context in association.accepted_contexts]
    association.release()
    assert accepted == [JPEGLosslessSV1, ExplicitVRLittleEndian]


def wire_of(sop_class: str, uid: str) -> Wire:
    data = encoded(instance(SOPClassUID=sop_class, SOPInstanceUID=uid))
    return Wire(sop_class, uid, ExplicitVRLittleEndian, data)


def test_unknown_classes_are_kept_or_refused_as_configured(
    receiver: Node, node: Callable[..., Node]
) -> None:
    wires = [
        wire_of(PRIVATE, "1.2.8.1"),
        wire_of(ULTRASOUND, "1.2.8.2"),
        wire_of(LABEL_MAP, "1.2.8.3"),
    ]
    assert store(receiver.port, *wires) == [0x0000] * 3
    assert kept(receiver, "1.2.8.1").SOPClassUID == PRIVATE
    strict = node("receive", overrides={"receive": {"unknown_sop_classes": "refuse"}})
    with scu(strict.port, wires) as requestor:
        accepted = {str(one.abstract_syntax) for one in requestor.association.accepted_contexts}
        assert accepted == {LABEL_MAP, VERIFICATION}
        assert requestor.store(wires[2]) == 0x0000
        assert requestor.echo() == 0x0000
