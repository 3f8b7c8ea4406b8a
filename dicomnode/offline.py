"""`dicomnode segment`: the same analysis without network and ledger, from a folder to a folder."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicomnode.domain.content import ContentPolicy
from dicomnode.domain.plans import FILES, Analysis, ModelOptions, Plan
from dicomnode.domain.profiles import PROFILES
from dicomnode.domain.quality import QualityPolicy
from dicomnode.errors import DicomnodeError, Refusal, SettingsError
from dicomnode.instances import UnreadableError, read_header, split_file
from dicomnode.pipeline import Analyzer
from dicomnode.shapes import Segmented
from inference.catalog import CatalogError, load_catalog

log = logging.getLogger(__name__)

UNNAMED = "unnamed"
"""The series of files that do not say to which series they belong."""


def segment_folder(
    folder: Path,
    output: Path,
    *,
    model: str,
    profile: str,
    research: bool,
    device: str,
    threads: int | None,
    options: ModelOptions,
    monoenergetic: bool,
    content: ContentPolicy,
    quality: QualityPolicy,
    model_folders: tuple[Path, ...],
    weights_folder: Path,
    commissioned_only: bool,
    console: Console,
) -> list[Segmented]:
    """Analyse every series in a folder and write the results to `output/<Series Instance UID>/`.

    With `research` also labels.nii.gz, statistics.json and structures.csv.

    Returns:
        What became of each series, refused ones too; never empty.

    Raises:
        SettingsError: an argument names something that does not exist.
        Refusal: there is no DICOM file in the folder.
    """
    if profile not in PROFILES:
        raise SettingsError(f"--profile {profile}: expected one of {', '.join(PROFILES)}")
    if not folder.is_dir():
        raise SettingsError(f"{folder}: no such folder")
    try:
        load_catalog(model_folders, weights_folder).card(model)
    except CatalogError as error:
        raise SettingsError(str(error)) from error
    series = read_folder(folder)
    if not series:
        raise Refusal("NO_DICOM", f"there is no DICOM file in {folder}")
    analyzer = Analyzer()
    found: list[Segmented] = []
    for uid, files in sorted(series.items()):
        plan = Plan(
            job_id="offline",
            model_id=model,
            analysed_at=datetime.now(UTC),
            model_folders=tuple(str(path) for path in model_folders),
            weights_folder=str(weights_folder),
            commissioned_only=commissioned_only,
            device=device,
            threads=threads,
            options=options,
            monoenergetic=monoenergetic,
            content=content,
            quality=quality,
            objects=(*PROFILES[profile], *(FILES if research else ())),
        )
        with _made(output), TemporaryDirectory(prefix=".unfinished-", dir=output) as unfinished:
            plan = replace(plan, results_folder=unfinished)
            try:
                analysis = _analyze(analyzer, files, plan, uid, console)
            except Refusal as refusal:
                said = f"{uid}: refused: {refusal}"
                console.print(said, style="red", markup=False, soft_wrap=True)
                found.append(_refused(uid, refusal))
                continue
            _write(analysis, output / uid)
        _report(analysis, output / uid, console)
        found.append(_segmented(uid, analysis, output / uid))
    return found


def _refused(uid: str, refusal: Refusal) -> Segmented:
    return {
        "series_uid": uid,
        "folder": None,
        "reason": refusal.code,
        "detail": refusal.detail,
        "results": [],
        "findings": [],
        "held": [],
        "timings": {},
    }


def _segmented(uid: str, analysis: Analysis, folder: Path) -> Segmented:
    return {
        "series_uid": uid,
        "folder": str(folder),
        "reason": None,
        "detail": "",
        "results": [
            {
                "kind": item.kind,
                "file": item.file_name,
                "size": (folder / item.file_name).stat().st_size,
                "summary": dict(item.summary),
            }
            for item in analysis.results
        ],
        "findings": list(analysis.findings),
        "held": list(analysis.held),
        "timings": dict(analysis.timings),
    }


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder, and take it away again if nothing has come of it."""
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if not existed and not any(folder.iterdir()):
            folder.rmdir()


def read_folder(folder: Path) -> dict[str, list[Path]]:
    """Return the DICOM files below a folder, by their Series Instance UID.

    Files that are no DICOM are passed over; DICOM files that do not name their series are kept
    under `UNNAMED`, so that the analysis can say what is wrong with them.
    """
    series: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        try:
            syntax, start = split_file(data)
        except UnreadableError:
            log.info("NOT_DICOM", extra={"fields": {"path": path}})
            continue
        try:
            uid: str = read_header(data[start:], syntax, b"offline").series_uid
        except UnreadableError:
            uid = UNNAMED
        series[uid].append(path)
    return series


def _analyze(
    analyzer: Analyzer, files: list[Path], plan: Plan, uid: str, console: Console
) -> Analysis:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{uid}: {len(files)} instances", total=1.0)

        def report(stage: str, fraction: float) -> None:
            bar.update(task, description=f"{uid}: {stage}", completed=fraction)

        try:
            return analyzer(files, plan, report)
        except CatalogError as error:
            raise DicomnodeError(str(error)) from error


def _write(analysis: Analysis, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in analysis.results:
        path = folder / item.file_name
        if item.file is None:
            path.write_bytes(item.data)
        else:
            item.file.rename(path)
        if item.picture:
            (folder / f"{item.kind}.png").write_bytes(item.picture)
    (folder / "labels.npz").write_bytes(analysis.label_map)


def _report(analysis: Analysis, folder: Path, console: Console) -> None:
    table = Table(title=str(folder), title_justify="left", box=None, pad_edge=False)
    for name in ("file", "content", "size"):
        table.add_column(name, overflow="fold")
    for item in analysis.results:
        size = (folder / item.file_name).stat().st_size
        table.add_row(item.file_name, describe(item.summary), f"{size:,} bytes")
    console.print(table)
    for finding in analysis.findings:
        console.print(f"  {finding}", style="yellow", markup=False, soft_wrap=True)
    if analysis.held:
        held = f"  {', '.join(analysis.held)}: a node would hold these results for a person."
        console.print(held, style="red", markup=False, soft_wrap=True)
    seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in analysis.timings.items())
    console.print(f"  {seconds}", style="dim", highlight=False)
    console.print("  Research software. Not verified, not for diagnosis.", style="bold")


def describe(summary: dict[str, int | float | str]) -> str:
    """Return the summary of a result for people, e.g. `59 segments, 1204 frames`."""
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in summary.items())
