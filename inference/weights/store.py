"""The weights folder: `<weights>/<model id>/<part>` and what is known of it in installed.json.

Upstream publishes no hashes. So the files of the first installation are trusted and recorded, and
verified before every use from then on; a card can pin them instead. A part appears whole or not.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from inference.card import ModelCard, Part, WeightsError, part_installed, sha256_of
from inference.card_document import NNUNET_FILES
from inference.record import PartRecord, read_record, sync_folder, write_record
from inference.weights.download import NoSpaceError, Report, check_space, fetch
from inference.weights.unpack import FILES, ModelFolder, find_models, take_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What became of one part."""

    model: str
    part: str
    origin: str
    new: bool
    """False: it was installed already, with the same files."""


def no_report(what: str, done: int, total: int) -> None:
    """Say nothing."""


def install(
    card: ModelCard,
    *,
    address: str | None = None,
    report: Report = no_report,
    replace: bool = False,
) -> tuple[Installed, ...]:
    """Fetch and install what is missing or damaged of a model.

    A part that lies beside its card is not fetched: its files are recorded as they are.

    Args:
        card: read with a weights folder.
        address: where the archives stand, if not where the card says.
        report: told about the progress.
        replace: trust the files although others were recorded before.

    Raises:
        WeightsError: says what is wrong and what to do.
    """
    home = _home(card)
    done = []
    for part in card.parts:
        if _intact(part) and not replace:
            done.append(Installed(model=card.id, part=part.name, origin="", new=False))
        elif part.archive is None:
            done.append(_record_in_place(card, part, replace=replace))
        else:
            archive = home.parent / "downloads" / f"{part.archive}.zip"
            origin = f"{(address or card.source or '').rstrip('/')}/{archive.name}"
            with _alone(archive.parent):
                if not archive.exists():
                    fetch(origin, archive, report)
                done.append(_from_archive(card, part, archive, origin, report, replace=replace))
    return tuple(done)


def bring(
    cards: Sequence[ModelCard], path: Path, *, report: Report = no_report, replace: bool = False
) -> tuple[Installed, ...]:
    """Install every part of `cards` that is in an archive, a folder, or a tree of them.

    Raises:
        WeightsError: nothing in `path` belongs to a card, or it cannot be used.
    """
    found = find_models(path)
    done = [
        _put(card, part, model, str(path), report, replace=replace)
        for model in found
        for card in cards
        for part in card.parts
        if part.archive == model.task and part.trainer == model.trainer
    ]
    if not done:
        wanted = ", ".join(f"{p.archive}/{p.trainer}" for c in cards for p in c.parts if p.archive)
        raise WeightsError(
            f"{path}: nothing to install: it holds {_named(found)}; expected {wanted}"
        )
    return tuple(done)


def _named(found: Sequence[ModelFolder]) -> str:
    return ", ".join(f"{m.task or '?'}/{m.trainer}" for m in found) or "no nnU-Net model"


def _intact(part: Part) -> bool:
    return part_installed(part) and _hashes(part.folder, list(part.sha256)) == part.sha256


def _from_archive(
    card: ModelCard, part: Part, archive: Path, origin: str, report: Report, *, replace: bool
) -> Installed:
    """Install a part from a fetched archive, which is kept only if there was no space."""
    keep = False
    try:
        found = find_models(archive)
        for model in found:
            if (model.task, model.trainer) == (part.archive, part.trainer):
                return _put(card, part, model, origin, report, replace=replace)
        raise WeightsError(
            f"{origin}: holds {_named(found)}; expected {part.archive}/{part.trainer} for part "
            f"{part.name!r} of {card.id!r}"
        )
    except NoSpaceError:
        keep = True
        raise
    finally:
        if not keep:
            archive.unlink()


def _put(
    card: ModelCard, part: Part, model: ModelFolder, origin: str, report: Report, *, replace: bool
) -> Installed:
    """Take out, convert, test and record one part; then move it to its place."""
    home = _home(card)
    archive_sha256 = sha256_of(model.container) if model.zipped else None
    if part.archive_sha256 not in (None, archive_sha256):
        raise WeightsError(
            f"{origin}: sha256 is {archive_sha256 or 'unknown, for it is unpacked'}; the card of "
            f"{card.id!r} expects the archive {part.archive_sha256}"
        )
    with _alone(home):
        check_space(home, 2 * model.size, f"part {part.name!r} of {card.id!r}")
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=home))
        try:
            report(f"unpack {part.name}", 0, 1)
            take_out(model, scratch / "origin")
            origin_files = _hashes(scratch / "origin", FILES[model.format])
            _same_as_before(card, part, origin_files, replace=replace)
            ready = _in_v2(card, part, model, scratch)
            _try(card, part, ready)
            _same_order(card, part, ready)
            files = _hashes(ready, NNUNET_FILES)
            _as_pinned(card, part, files)
            record = PartRecord(
                files=files,
                origin=origin,
                format=model.format,
                origin_files=origin_files,
                archive_sha256=archive_sha256,
                installed_at=_now(),
            )
            _move(ready, part.folder, scratch)
            _note(card, part, record)
            report(f"unpack {part.name}", 1, 1)
        except OSError as error:
            raise WeightsError(f"{home}: cannot be written: {error.strerror}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return Installed(model=card.id, part=part.name, origin=origin, new=True)


def _in_v2(card: ModelCard, part: Part, model: ModelFolder, scratch: Path) -> Path:
    if model.format == "nnU-Net v2":
        return scratch / "origin"
    from inference.weights.convert import convert  # torch takes seconds to load

    convert(
        scratch / "origin",
        scratch / "converted",
        task=model.task,
        names=_names(card, part),
    )
    return scratch / "converted"


def _try(card: ModelCard, part: Part, folder: Path) -> None:
    """Load the network strictly, as the predictor will."""
    import torch

    from inference.nnunet_folder import load_part

    candidate = Part(name=part.name, folder=folder, labels=part.labels, sha256={})
    load_part(candidate, card, torch.device("cpu"))


def _same_order(card: ModelCard, part: Part, folder: Path) -> None:
    """Refuse a network that names the card's structures, but gives them other labels."""
    labels = json.loads((folder / "dataset.json").read_bytes())["labels"]
    theirs = [name for name, _ in sorted(labels.items(), key=lambda item: item[1])][1:]
    ours = _names(card, part)
    if theirs != ours and set(theirs) == set(ours):
        first = next(label for label, name in enumerate(ours) if theirs[label] != name)
        raise WeightsError(
            f"{folder.name}: label {first + 1} of part {part.name!r} of {card.id!r} is "
            f"{theirs[first]!r}; the card expects {ours[first]!r}"
        )


def _names(card: ModelCard, part: Part) -> list[str]:
    known = {structure.label: structure.name for structure in card.structures}
    return [
        known.get(label, f"dropped_{index}") for index, label in enumerate(part.labels[1:], start=1)
    ]


def _record_in_place(card: ModelCard, part: Part, *, replace: bool) -> Installed:
    if not all((part.folder / name).is_file() for name in NNUNET_FILES):
        raise WeightsError(f"{part.folder}: expected {', '.join(NNUNET_FILES)}")
    home = _home(card)
    with _alone(home):
        files = _hashes(part.folder, NNUNET_FILES)
        _same_as_before(card, part, files, replace=replace)
        _as_pinned(card, part, files)
        _try(card, part, part.folder)
        record = PartRecord(
            files=files,
            origin=str(part.folder),
            format="nnU-Net v2",
            origin_files=files,
            installed_at=_now(),
        )
        _note(card, part, record)
    return Installed(model=card.id, part=part.name, origin=str(part.folder), new=True)


def _same_as_before(
    card: ModelCard, part: Part, origin_files: dict[str, str], *, replace: bool
) -> None:
    before = read_record(_home(card), card.id).parts.get(part.name)
    if before is not None and before.origin_files != origin_files and not replace:
        raise WeightsError(
            f"part {part.name!r} of {card.id!r}: these are other files than the ones recorded on "
            f"{before.installed_at} from {before.origin}; --replace trusts the new ones"
        )


def _as_pinned(card: ModelCard, part: Part, files: dict[str, str]) -> None:
    """Refuse files that differ from those that the card itself names."""
    recorded = read_record(_home(card), card.id).parts.get(part.name)
    pinned = dict(part.sha256) if recorded is None or recorded.files != part.sha256 else {}
    if pinned not in ({}, files):
        raise WeightsError(
            f"part {part.name!r} of {card.id!r}: sha256 of the files is {files}; the card expects "
            f"{pinned}"
        )


def _move(ready: Path, target: Path, scratch: Path) -> None:
    if target.exists():
        target.rename(scratch / "old")
    ready.rename(target)
    sync_folder(target.parent)


def _note(card: ModelCard, part: Part, record: PartRecord) -> None:
    home = _home(card)
    known = read_record(home, card.id)
    parts = {**known.parts, part.name: record}
    write_record(home, known.model_copy(update={"parts": parts}))


def _hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in names}


def _home(card: ModelCard) -> Path:
    if card.weights is None:
        raise WeightsError(f"model {card.id!r}: no weights folder was given")
    return card.weights


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the model's lock, so that two commands do not install it at once."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise WeightsError(f"{home}: another command is installing here") from None
