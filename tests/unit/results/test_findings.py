"""Findings in the report: coded for each structure and for the whole, in a scheme of their own."""

from __future__ import annotations

from dataclasses import fields
from io import BytesIO

import numpy as np
import pydicom
from analysis_kit import ConstantPredictor, model_card, plan
from pydicom.dataset import Dataset

from dicomnode.demo.series import write_series
from dicomnode.domain.content import ContentPolicy
from dicomnode.domain.plans import Analysis
from dicomnode.domain.quality import QualityPolicy
from dicomnode.pipeline import analyze
from dicomnode.results.findings import MEANINGS, SCHEME

HU = np.full((10, 12, 8), -1000, np.int16)
HU[2:8, 2:9] = 50
FILES = write_series(HU, np.diag([-40.0, -40.0, 40.0, 1.0]))
MIRRORED = {
    5: (slice(2, 7), slice(2, 9), slice(1, 5)),  # the liver on the patient's left
    1: (slice(2, 7), slice(2, 9), slice(6, 10)),  # the spleen cut by the field of view
}


def report() -> tuple[Analysis, Dataset]:
    predictor = ConstantPredictor(MIRRORED)
    analysis = analyze(FILES, plan(), predictor=predictor, card=model_card((40.0, 40.0, 40.0)))
    return analysis, pydicom.dcmread(BytesIO(analysis.results[-1].data))


def own_codes(container: Dataset) -> list[str]:
    """Return the values of the items of the node's own scheme."""
    coded = [item for item in container.ContentSequence if item.ValueType == "CODE"]
    named = [i for i in coded if i.ConceptNameCodeSequence[0].CodingSchemeDesignator == SCHEME]
    return [str(item.ConceptCodeSequence[0].CodeValue) for item in named]


def test_each_structure_and_the_whole_say_what_was_found() -> None:
    analysis, dataset = report()
    found = {one.code: one.structures for one in analysis.coded}
    assert "spleen" in found["CUT_IN_PLANE"]
    assert "liver" in found["VOLUME_IMPLAUSIBLE"]
    measured, said = dataset.ContentSequence[-2:]
    by_name = dict(zip(("spleen", "liver"), measured.ContentSequence, strict=True))
    for name, group in by_name.items():
        expected = [MEANINGS[one.code].value for one in analysis.coded if name in one.structures]
        assert own_codes(group) == expected
    assert own_codes(by_name["spleen"]) != own_codes(by_name["liver"])
    assert own_codes(said) == [MEANINGS[one.code].value for one in analysis.coded]
    texts = [str(item.get("TextValue", "")) for item in said.ContentSequence]
    for one in analysis.coded:
        assert one.sentence in texts
    (scheme,) = (
        item
        for item in dataset.CodingSchemeIdentificationSequence
        if item.CodingSchemeDesignator == SCHEME
    )
    assert scheme.CodingSchemeResponsibleOrganization == "dicomnode"


def test_every_finding_has_a_code_of_its_own() -> None:
    names = {f.name.upper() for policy in (ContentPolicy, QualityPolicy) for f in fields(policy)}
    assert set(MEANINGS) == names
    values = [code.value for code in MEANINGS.values()]
    meanings = [code.meaning for code in MEANINGS.values()]
    assert len(set(values)) == len(set(meanings)) == len(MEANINGS)
    assert all(len(value) <= 16 for value in values)
    assert all(len(meaning) <= 64 for meaning in meanings)
