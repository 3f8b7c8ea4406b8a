"""`dicomnode fetch`: studies that nobody routed, with a bar on a terminal and a line a study."""

from __future__ import annotations

import getpass
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dicomnode.commands.common import DONE, FAILED, REFUSED, say
from dicomnode.domain.identifiers import InvalidUIDError, SeriesUID, StudyUID, parse_uid
from dicomnode.domain.outcomes import Done, Outcome, Refuse
from dicomnode.domain.retrieval import Wanted
from dicomnode.errors import SettingsError
from dicomnode.services import fetch as service
from dicomnode.services.common import Context, open_context
from dicomnode.services.fetch import Report, Stage
from dicomnode.settings import Settings
from dicomnode.shapes import Fetched

MAX_UIDS = 20
"""Of failed instances that are shown."""


def fetch_studies(
    settings: Settings,
    studies: Sequence[str],
    series: str | None,
    peer: str | None,
    out: Console,
    err: Console,
    who: str | None = None,
    *,
    as_json: bool = False,
) -> int:
    """Fetch studies one after the other; return the exit code.

    Raises:
        SettingsError: a UID is none, or the peer may not be asked.
        DicomnodeError: another process fetches, or ledger or spool cannot be used.
    """
    wanted = [_wanted(study, series) for study in studies]
    service.sources(settings, peer)  # what is wrong there is told before anything is begun
    context = open_context(settings, service.NAME)
    codes = set()
    found: list[Fetched] = []
    with context.spool.only(service.NAME), _stopped_by_signals(context):
        context.spool.clear_tmp()
        for path in context.spool.left_arriving():
            path.unlink()  # what a fetch that died had in hand, and nobody was told of
        for one in wanted:
            if context.stop.is_set():
                codes.add(FAILED)
                break
            with _shown(err) as show:
                report = service.fetch(
                    context, one, peer=peer, who=who or getpass.getuser(), show=show
                )
            found.append(_fetched(one, report))
            codes.add(_code(report.outcome))
            if not as_json:
                _tell(one, report, out, err)
    context.ledger.close()
    if as_json:
        say(found)
    return FAILED if FAILED in codes else max(codes)


def _wanted(study: str, series: str | None) -> Wanted:
    try:
        return Wanted(
            study_uid=StudyUID(parse_uid(study)),
            series_uid=None if series is None else SeriesUID(parse_uid(series)),
        )
    except InvalidUIDError as error:
        raise SettingsError(f"--study and --series expect a UID: {error}") from error


@contextmanager
def _stopped_by_signals(context: Context) -> Iterator[None]:
    """On SIGINT and SIGTERM the archive is told to stop, and what came is kept."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        context.stop.set()

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def _shown(console: Console) -> Iterator[service.Show]:
    """Show a bar where there is a terminal, and nothing elsewhere."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[others]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=None, others="")

    def show(stage: Stage) -> None:
        operations = stage.operations
        done = operations.completed + operations.failed + operations.warning
        left = operations.remaining
        others = ", ".join(
            f"{count} {word}"
            for count, word in (
                (left, "remaining"),
                (operations.failed, "failed"),
                (operations.warning, "with a warning"),
            )
            if count
        )
        how = "asked" if stage.method is None else f"C-{stage.method}"
        total = stage.expected if left is None else done + left
        bar.update(
            task, description=f"{stage.peer} {how}", completed=done, total=total, others=others
        )

    with bar:
        yield show


def _code(outcome: Outcome) -> int:
    if isinstance(outcome, Done):
        return DONE
    return REFUSED if isinstance(outcome, Refuse) else FAILED


def _fetched(wanted: Wanted, report: Report) -> Fetched:
    outcome = report.outcome
    came = isinstance(outcome, Done)
    return {
        "study_uid": wanted.study_uid,
        "series_uid": wanted.series_uid,
        "peer": report.stage.peer,
        "method": report.stage.method,
        "state": "FETCHED" if came else "FAILED",
        "instances": report.stage.expected,
        "reason": None if came else outcome.code,
        "detail": "" if isinstance(outcome, Done) else outcome.detail,
        "warning": outcome.warning if isinstance(outcome, Done) else "",
        "failed_uids": list(report.failed_uids),
    }


def _tell(wanted: Wanted, report: Report, out: Console, err: Console) -> None:
    stage, outcome = report.stage, report.outcome
    what = wanted.series_uid or wanted.study_uid
    if isinstance(outcome, Done):
        text = f"{what}: {stage.expected} instances from {stage.peer} by C-{stage.method}"
        warning = f"; {outcome.warning}" if outcome.warning else ""
        out.print(text + warning, highlight=False, soft_wrap=True)
        return
    lines = [f"{what}: {stage.peer}: {outcome.code}: {outcome.detail}"]
    lines += [f"  failed: {uid}" for uid in report.failed_uids[:MAX_UIDS]]
    if len(report.failed_uids) > MAX_UIDS:
        lines.append(f"  and {len(report.failed_uids) - MAX_UIDS} more")
    for line in lines:
        err.print(line, style="red", highlight=False, markup=False, soft_wrap=True)
