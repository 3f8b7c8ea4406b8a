"""Archives with a script that run, and senders in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from archives import ScriptedArchive
from sending_kit import Sending


@pytest.fixture
def start_archive() -> Iterator[Callable[..., ScriptedArchive]]:
    """Make archives of a class, which run."""
    made: list[ScriptedArchive] = []

    def make(kind: type[ScriptedArchive], *arguments: Any, **keywords: Any) -> ScriptedArchive:
        made.append(kind(*arguments, **keywords).start())
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def archive(
    start_archive: Callable[..., ScriptedArchive],
) -> Callable[..., ScriptedArchive]:
    """Make archives that answer as their script says."""
    return partial(start_archive, ScriptedArchive)


@pytest.fixture
def sending(tmp_path: Path, clock: Any) -> Iterator[Callable[..., Sending]]:
    """Make senders, each in a folder of its own; arguments as of `Sending` from its port on."""
    made: list[Sending] = []

    def make(port: int, **keywords: Any) -> Sending:
        made.append(Sending(tmp_path / f"sending-{len(made)}", clock, port, **keywords))
        return made[-1]

    yield make
    for one in made:
        one.close()
