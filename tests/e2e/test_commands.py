"""The commands a newcomer types: demo, segment, check, status, each as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from nodes import Node
from PIL import Image

from dicomnode.demo.readback import read_segments
from dicomnode.services.common import open_context

REPOSITORY = Path(__file__).resolve().parents[2]


def dicomnode(
    *arguments: object, cwd: Path, umask: int = -1, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dicomnode", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=cwd,
        umask=umask,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def test_segment_makes_results_without_a_network(tmp_path: Path, test_data: Path) -> None:
    folder = test_data / "crlm-ct-1004/image"
    done = dicomnode("segment", folder, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not for diagnosis" in done.stdout
    (results,) = (tmp_path / "out").iterdir()
    with np.load(results / "labels.npz") as stored:
        labels, uids = stored["labels"], [str(uid) for uid in stored["sop_instance_uids"]]
    assert (read_segments(results / "seg.dcm", uids, labels.shape) == labels).all()
    assert pydicom.dcmread(results / "sr.dcm").VerificationFlag == "UNVERIFIED"
    with Image.open(results / "preview.png") as picture:
        drawn = pydicom.dcmread(results / "preview.dcm").pixel_array
        assert np.array_equal(np.asarray(picture), drawn)


def test_segment_refuses_with_a_reason_and_an_exit_code(tmp_path: Path, test_data: Path) -> None:
    folder = test_data / "totalsegmentator/example_ct_dicom"
    done = dicomnode("segment", folder, "-o", "out", cwd=tmp_path)
    assert done.returncode == 3
    assert "MISSING_IDENTIFIERS" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["segment", "nowhere", "-o", "out"], "nowhere: no such folder"),
        (["segment", ".", "-o", "out", "--model", "nonesuch"], "nonesuch"),
        (
            ["segment", ".", "-o", "out", "--profile", "nonesuch"],
            "expected one of pacs, modern, pictures, rtstruct",
        ),
        (["check", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = dicomnode(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_check_names_file_line_and_key(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("node:\n  ae_titel: X\n")
    done = dicomnode("check", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("bad.yaml:2:3: node.ae_titel: unknown key")
    assert done.stderr.endswith("; did you mean 'ae_title'?\n")


def test_check_knows_the_models(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("rules:\n  - name: all\n    model: nonesuch\n")
    done = dicomnode("check", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "rules.0.model: no model is named 'nonesuch'" in done.stderr


def test_the_packaged_configuration_is_the_default(tmp_path: Path) -> None:
    done = dicomnode("check", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.strip().endswith("dicomnode.yaml: good")
    assert (REPOSITORY / "config/dicomnode.yaml").resolve().is_relative_to(REPOSITORY / "dicomnode")


def test_status_of_an_empty_node(tmp_path: Path) -> None:
    node = Node(tmp_path)
    done = dicomnode("status", node.config, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["instances"] == 0
    shown = dicomnode("status", cwd=tmp_path, DICOMNODE_CONFIG=str(node.config))
    assert "Nothing needs attention." in shown.stdout


def test_a_person_can_act_and_repeat_it(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with open_context(node.settings, "receive").ledger.transaction() as tx:
        tx.event("BYTES_MISSING", level="attention")
    (event,) = node.status()["attention"]
    asked = ("acknowledge", event["id"], "-c", node.config)
    assert dicomnode(*asked, cwd=tmp_path).stdout.strip() == "acknowledged"
    again = dicomnode(*asked, cwd=tmp_path)
    assert (again.returncode, again.stdout.strip()) == (1, "nothing to do")
    assert node.attention() == []
    for wrong in (("requeue",), ("requeue", "--job", "1", "--delivery", "1")):
        done = dicomnode(*wrong, "-c", node.config, cwd=tmp_path)
        assert (done.returncode, done.stderr.strip()) == (2, "expected either --job or --delivery")
    unknown = dicomnode("release", "1.2.3", "--reason", "x", "-c", node.config, cwd=tmp_path)
    assert (unknown.returncode, unknown.stdout.strip()) == (1, "nothing to do")


def test_roles_that_only_move_data_load_no_model(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from dicomnode.services import receive, tick, send, supervise, work\n"
        "heavy = {'torch', 'nnunetv2', 'SimpleITK', 'highdicom'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['highdicom'] = None\n"  # as if it were not installed
        "sys.argv = ['dicomnode', 'segment', '.', '-o', 'out']\n"
        "from dicomnode.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "highdicom is not installed: pip install 'dicomnode[work]'"


def test_what_the_node_keeps_is_for_its_user_alone(tmp_path: Path) -> None:
    node = Node(tmp_path)
    assert dicomnode("status", node.config, cwd=tmp_path, umask=0o022).returncode == 0
    node.start("tick").stop()
    for path in (node.state, *node.state.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
