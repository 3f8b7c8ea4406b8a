"""`dicomnode models commission`: a model may serve patients here, once it was seen to work here."""

from __future__ import annotations

import getpass
import logging
from pathlib import Path
from typing import Annotated

import typer

from dicomnode import commissioning, logs
from dicomnode.commands.common import FAILED, AsJson, out, say
from dicomnode.commands.models import (
    Config,
    Model,
    ModelFolder,
    Weights,
    card_of,
    named_errors,
    place_of,
)
from dicomnode.errors import SettingsError
from dicomnode.model_views import print_agreement

log = logging.getLogger(__name__)


def commission(
    model: Model,
    reference: Annotated[
        Path | None, typer.Option(help="Folder of a CT series' DICOM files: the reference case.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Its labels: labels.npz of this node, .nii or .nii.gz.")
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Accept it without a case; the name is recorded."),
    ] = None,
    minimum: Annotated[
        float, typer.Option(min=0, max=1, help="Mean Dice over the reference's structures.")
    ] = 0.8,
    by: Annotated[str | None, typer.Option(help="Who does this.", metavar="NAME")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    exact: Annotated[bool, typer.Option("--exact", help="As rules with `mode: exact`.")] = False,
    config: Config = None,
    weights: Weights = None,
    model_folder: ModelFolder = None,
    as_json: AsJson = False,
) -> None:
    """Run a reference case and record how a model agrees with it; only then it serves patients.

    For example: dicomnode models commission total-v2 --reference /data/ct --labels labels.nii.gz
    """
    logs.set_up("commission")
    with named_errors():
        place = place_of(config, weights, model_folder)
        card = card_of(place, model)
        if card.demonstration:
            raise SettingsError(f"model {model!r} is for demonstration and never serves patients")
        if accept is not None and (reference or labels):
            raise SettingsError("either --accept NAME, or --reference FOLDER with --labels FILE")
        agreement = None
        if accept is None:
            if reference is None or labels is None:
                raise SettingsError("expected --reference FOLDER and --labels FILE")
            from dicomnode.reference import run_reference  # loads the model

            agreement = run_reference(
                card, place.folders, reference, labels, minimum=minimum, device=device, exact=exact
            )
        entry = commissioning.record(card, _name(accept or by), agreement)
    log.info("MODEL_COMMISSIONED", extra={"fields": entry.model_dump(exclude={"agreement"})})
    if as_json:
        say(entry.model_dump())
    else:
        print_agreement(out, entry)
    raise typer.Exit(0 if entry.passed else FAILED)


def _name(given: str | None) -> str:
    name = (given if given is not None else getpass.getuser()).strip()
    if not name:
        raise SettingsError("expected the name of a person")
    return name
