"""Presentation Contexts: what becomes of what a requestor proposes (PS3.8 section 9.3.3.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dicomnode.network.pdus import (
    ABSTRACT_SYNTAX_NOT_SUPPORTED,
    ACCEPTANCE,
    TRANSFER_SYNTAXES_NOT_SUPPORTED,
    ContextResult,
    ProposedContext,
)

Supported = Mapping[str, tuple[str, ...]]
"""Abstract syntax -> transfer syntaxes, the preferred ones first."""


def negotiate(
    proposed: Iterable[ProposedContext], supported: Supported
) -> tuple[ContextResult, ...]:
    """Accept of each context the transfer syntax that is preferred here, or say why not."""
    return tuple(_answer(context, supported) for context in proposed)


def _answer(context: ProposedContext, supported: Supported) -> ContextResult:
    ours = supported.get(context.abstract_syntax)
    theirs = context.transfer_syntaxes
    accepted = next((uid for uid in ours or () if uid in theirs), None)
    if ours is None:
        result = ABSTRACT_SYNTAX_NOT_SUPPORTED
    elif accepted is None:
        result = TRANSFER_SYNTAXES_NOT_SUPPORTED
    else:
        result = ACCEPTANCE
    return ContextResult(
        id=context.id,
        result=result,
        abstract_syntax=context.abstract_syntax,
        transfer_syntax=accepted or theirs[0],
    )
