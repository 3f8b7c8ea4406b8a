"""What has to be so when docs/start.md was followed: run by its test, beside what that started.

`python start_check.py ORTHANC-HTTP PAGE OHIF`: addresses; OHIF's may be empty.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
from ohif_page import Ohif, start_chromium
from playwright.sync_api import sync_playwright

from dicomnode.demo.readback import read_segments


def get(url: str) -> bytes:
    """Return what an address answers."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        data: bytes = answer.read()
        return data


def stored(orthanc: str) -> dict[str, list[pydicom.Dataset]]:
    """Return what lies in the archive by modality."""
    found: dict[str, list[pydicom.Dataset]] = {}
    for name in json.loads(get(f"{orthanc}/instances")):
        data = get(f"{orthanc}/instances/{name}/file")
        dataset = pydicom.dcmread(BytesIO(data))
        dataset.file_bytes = data
        found.setdefault(dataset.Modality, []).append(dataset)
    return found


def labels_of(found: dict[str, list[pydicom.Dataset]]) -> tuple[list[str], Any]:
    """Return the SOP Instance UIDs of the slices, and the archive's SEG as labels on them."""
    slices = sorted(found["CT"], key=lambda one: float(one.ImagePositionPatient[2]))
    uids = [str(one.SOPInstanceUID) for one in slices]
    (seg,) = found["SEG"]
    with TemporaryDirectory() as folder:
        path = Path(folder, "seg.dcm")
        path.write_bytes(seg.file_bytes)
        return uids, read_segments(path, uids, (len(uids), slices[0].Rows, slices[0].Columns))


def check_ohif(url: str, study_uid: str, uids: list[str], labels: Any) -> None:
    """Open the study in OHIF; what it lays over the images is the archive's SEG."""
    with sync_playwright() as playwright:
        browser = start_chromium(playwright)
        viewer = Ohif(browser, url)
        viewer.open_study(study_uid, series=4)
        overlay = viewer.load_segmentation("SEG of S")
        assert viewer.errors == []
        browser.close()
    of_slice = dict(zip(uids, labels, strict=True))
    assert set(overlay.numbers) == set(uids)
    for uid, numbers in overlay.numbers.items():
        assert np.array_equal(numbers > 0, of_slice[uid] > 0), uid


def main(orthanc: str, page: str, ohif: str) -> None:
    """Look at everything."""
    found = stored(orthanc)
    assert sorted(found) == ["CT", "OT", "SEG", "SR"], sorted(found)
    assert [len(found[one]) for one in ("OT", "SEG", "SR")] == [1, 1, 1]
    everything = [one for many in found.values() for one in many]
    (study_uid,) = {str(one.StudyInstanceUID) for one in everything}
    assert len({str(one.PatientID) for one in everything}) == 1
    assert len(found["SEG"][0].SegmentSequence) > 50
    uids, labels = labels_of(found)
    assert len(np.unique(labels)) > 50
    assert b"Sign in" in get(f"{page}/login")
    if ohif:
        check_ohif(ohif, study_uid, uids, labels)
    sys.stdout.write("start.md holds\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
