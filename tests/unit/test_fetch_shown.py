"""What a terminal shows of a fetch that is under way, and what a pipe does not."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from dicomnode.commands.fetching import _shown
from dicomnode.domain.retrieval import SubOperations
from dicomnode.services.fetch import Stage


def shown(stage: Stage, *, terminal: bool) -> str:
    text = StringIO()
    with _shown(Console(file=text, force_terminal=terminal, width=120)) as show:
        show(stage)
    return text.getvalue()


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Stage(peer="PACS"), ["PACS asked"]),
        (Stage(peer="PACS", method="GET", expected=7), ["PACS C-GET", "0/7"]),
        (
            Stage(
                peer="PACS",
                method="MOVE",
                expected=7,
                operations=SubOperations(remaining=3, completed=2, failed=1, warning=1),
            ),
            ["PACS C-MOVE", "4/7", "3 remaining, 1 failed, 1 with a warning"],
        ),
        # An archive that counts otherwise when it sends than when it was asked.
        (
            Stage(
                peer="PACS",
                method="MOVE",
                expected=7,
                operations=SubOperations(remaining=8, completed=2),
            ),
            ["2/10", "8 remaining"],
        ),
    ],
)
def test_a_terminal_shows_how_far_it_is(stage: Stage, words: list[str]) -> None:
    text = shown(stage, terminal=True)
    for word in words:
        assert word in text
    assert shown(stage, terminal=False).strip() == ""
