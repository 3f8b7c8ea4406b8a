"""Exact mode against the real TotalSegmentator, label for label. Minutes: `make parity` runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from parity import kit

from inference.nnunet import NnunetPredictor

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("DICOMNODE_PARITY") != "1", reason="make parity runs the real package"
    ),
    pytest.mark.timeout(3000),
    pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans format"),
]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_no_label_differs(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, work, upstream = (tmp_path / name for name in ("weights", "work", "upstream"))
    for folder in (weights, work, upstream):
        folder.mkdir()
    kit.write_weights(version, weights)
    labels, answer = kit.ask_upstream(version, weights, kit.CASES, upstream)
    cards = kit.cards(version, weights, work, answer["names"])
    predictors = {fast: NnunetPredictor(card, threads=2) for fast, card in cards.items()}
    differing = {}
    for case in kit.CASES:
        with monkeypatch.context() as patch:
            if case.force_split:
                patch.setattr("inference.nnunet.is_split", lambda *_: True)
            found = kit.ours(case, cards[case.fast], predictors[case.fast])
        assert len(np.unique(labels[case.name])) > 10, "nothing was found that could differ"
        differing[case.name] = int((found != labels[case.name]).sum())
        line = f"{version}: {case.name}: {differing[case.name]} of {found.size} labels differ\n"
        sys.stderr.write(line)
    assert not any(differing.values()), differing
    kit.freeze(version, labels, answer["names"])
