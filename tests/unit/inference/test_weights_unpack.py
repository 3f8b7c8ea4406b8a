"""Archives and folders of others: found by their files, nothing taken from where it must not be."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from inference.card import WeightsError
from inference.weights import unpack
from inference.weights.unpack import FILES, find_models, take_out

TASK = "Task251_TotalSegmentator_part1_organs_1139subj"
TRAINER = "nnUNetTrainerV2_ep4000_nomirror__nnUNetPlansv2.1"
DATASET = "Dataset291_TotalSegmentator_part1_organs_1559subj"
V1, V2 = FILES["nnU-Net v1"], FILES["nnU-Net v2"]


def fill(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 3)
    return folder


def archive(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, data in entries.items():
            made.writestr(name, data)
    return path


def good(prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{TASK}/{TRAINER}/{name}": name.encode() for name in (*V1, "plans.pkl")}


@pytest.mark.parametrize("prefix", ["", "3d_fullres/", "nnunet/results/nnUNet/3d_fullres/"])
def test_a_network_is_found_at_any_depth_of_an_archive(tmp_path: Path, prefix: str) -> None:
    path = archive(tmp_path / "a.zip", good(prefix))
    (found,) = find_models(path)
    assert (found.task, found.trainer, found.format) == (TASK, TRAINER, "nnU-Net v1")
    take_out(found, tmp_path / "out")
    files = [p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert sorted(map(str, files)) == sorted(V1), "only what the network needs"
    assert (tmp_path / "out" / V1[0]).read_bytes() == V1[0].encode()


def test_networks_are_found_in_a_tree(tmp_path: Path) -> None:
    tree = tmp_path / ".totalsegmentator"
    fill(tree / "nnunet/results/nnUNet/3d_fullres" / TASK / TRAINER, V1)
    fill(tree / "nnunet/results" / DATASET / "T__nnUNetPlans__3d_fullres", V2)
    archive(tree / "more.zip", {f"{DATASET}/U__x/{name}": b"" for name in V2})
    found = {(model.task, model.trainer, model.zipped) for model in find_models(tree)}
    assert found == {
        (TASK, TRAINER, False),
        (DATASET, "T__nnUNetPlans__3d_fullres", False),
        (DATASET, "U__x", True),
    }


def test_the_task_is_known_from_within_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path / DATASET / "T__p", V2)
    monkeypatch.chdir(folder)
    for number, path in enumerate((folder, folder.parent, Path())):
        (found,) = find_models(path)
        assert (found.task, found.trainer, found.size) == (DATASET, "T__p", 3 * len("".join(V2)))
        take_out(found, tmp_path / str(number))


def test_links_in_a_tree_are_not_followed(tmp_path: Path) -> None:
    real = fill(tmp_path / "real" / DATASET / "T__p", V2)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / DATASET).symlink_to(real.parent)
    assert find_models(tree) == []


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        f"{TASK}/../../outside",
        "/etc/cron.d/x",
        "..\\outside",
        "C:/x",
        "a\nb",
    ],
)
def test_a_name_that_leads_elsewhere_refuses_the_archive(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "a.zip", {**good(), name: b"x"})
    with pytest.raises(WeightsError, match="leads out of the archive"):
        find_models(path)
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_refuses_the_archive(tmp_path: Path, kind: int) -> None:
    path = archive(tmp_path / "a.zip", good())
    with zipfile.ZipFile(path, "a") as made:
        entry = zipfile.ZipInfo(f"{TASK}/link")
        entry.external_attr = (kind | 0o777) << 16
        made.writestr(entry, "/etc/passwd")
    with pytest.raises(WeightsError, match="is a link or a device"):
        find_models(path)


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "a.zip", good())
    monkeypatch.setattr(unpack, "MAX_ENTRIES", 2)
    with pytest.raises(WeightsError, match="more than 2 files"):
        find_models(path)
    monkeypatch.setattr(unpack, "MAX_ENTRIES", 20)
    monkeypatch.setattr(unpack, "MAX_BYTES", 20)
    with pytest.raises(WeightsError, match="unpacks to more than 20 bytes"):
        find_models(path)


def test_a_length_that_lies_is_noticed(tmp_path: Path) -> None:
    names = {f"{TASK}/{TRAINER}/{name}": b"x" * 5000 for name in V1}
    path = archive(tmp_path / "a.zip", names)
    data = path.read_bytes()
    path.write_bytes(data.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    (found,) = find_models(path)
    with pytest.raises(WeightsError, match="damaged or incomplete"):
        take_out(found, tmp_path / "out")


def test_twice_the_same_name_and_secrets_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", good())
    with zipfile.ZipFile(path, "a") as made, pytest.warns(UserWarning, match="Duplicate"):
        made.writestr(next(iter(good())), b"other")
    with pytest.raises(WeightsError, match="occurs twice"):
        find_models(path)
    path = archive(tmp_path / "b.zip", good())
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="is encrypted"):
        find_models(path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_a_damaged_archive_is_told(tmp_path: Path, damage: str) -> None:
    path = archive(tmp_path / "a.zip", {name: os.urandom(999) for name in good()})
    data = path.read_bytes()
    changed = {"cut": data[:-200], "text": b"<html>Not found</html>", "empty": b""}
    flipped = bytearray(data)
    flipped[500] ^= 1
    path.write_bytes(changed.get(damage, bytes(flipped)))
    with pytest.raises(WeightsError, match=r"damaged or incomplete .* fetch it again"):
        take_out(find_models(path)[0], tmp_path / "out")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nowhere: no such file or folder"):
        find_models(tmp_path / "nowhere")
