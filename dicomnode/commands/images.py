"""Images without the routing: a folder analysed, a study fetched, the whole job shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dicomnode import logs
from dicomnode.commands import completing
from dicomnode.commands.common import (
    REFUSED,
    AsJson,
    Config,
    ConfigOption,
    err,
    out,
    say,
    settings_of,
)
from dicomnode.domain.plans import ModelOptions
from dicomnode.errors import Refusal, SettingsError
from dicomnode.settings import load


def segment(
    folder: Annotated[Path, typer.Argument(help="Folder of a CT series' DICOM files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    model: Annotated[str, typer.Option(help="Of the catalog.")] = "demo",
    profile: Annotated[str, typer.Option(help="pacs, modern, pictures or rtstruct.")] = "pacs",
    research: Annotated[
        bool, typer.Option("--research", help="Also NIfTI, statistics.json and a CSV table.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    model_folder: Annotated[
        list[Path] | None, typer.Option(help="A folder with more model cards.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Label for label as the model's own package; slower.")
    ] = False,
    structure: Annotated[
        list[str] | None, typer.Option(help="Only this structure; again for more.")
    ] = None,
    step_size: Annotated[
        float | None, typer.Option(help="Of the tiles, as a part of the patch.", min=0.1, max=1)
    ] = None,
    body_crop: Annotated[bool, typer.Option("--body-crop", help="Leave out the air.")] = False,
    monoenergetic: Annotated[
        bool, typer.Option("--monoenergetic", help="Analyse virtual monoenergetic images too.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of installed weights.")] = None,
    uncommissioned: Annotated[
        bool, typer.Option("--uncommissioned", help="Run a model that is not commissioned.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Analyse a folder without any network: DICOM in, SEG, preview and SR out.

    Ends with 3 where every series of the folder was refused.

    For example: dicomnode segment /data/ct -o results --model demo
    """
    from dicomnode.offline import segment_folder

    logs.set_up("segment")
    found = segment_folder(
        folder,
        output,
        model=model,
        profile=profile,
        research=research,
        device=device,
        threads=threads,
        model_folders=tuple(model_folder or ()),
        weights_folder=weights.absolute() if weights else load().weights_folder,
        content=load().content,
        quality=load().quality,
        commissioned_only=not uncommissioned,
        options=ModelOptions(
            mode="exact" if exact else "fast",
            step_size=step_size,
            structures=tuple(structure or ()),
            body_crop=body_crop,
        ),
        monoenergetic=monoenergetic,
        console=Console(quiet=True) if as_json else out,
    )
    if as_json:
        say(found)
    if not any(one["folder"] for one in found):
        first = found[0]
        if as_json:
            raise typer.Exit(REFUSED)
        raise Refusal(str(first["reason"]), first["detail"])


def fetch(
    study: Annotated[
        list[str], typer.Option(metavar="UID", help="Study Instance UID; again for more.")
    ],
    config: Config = None,
    series: Annotated[
        str | None, typer.Option(metavar="UID", help="Only this series of the study.")
    ] = None,
    peer: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="PEER",
            help="Default: whichever has it, of `query: true`.",
            autocompletion=completing.archives,
        ),
    ] = None,
    config_option: ConfigOption = None,
    who: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who wants it; default: who is logged in.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch studies that were not routed from an archive; they are analysed as if they had been.

    For example: dicomnode fetch dicomnode.yaml --study 1.2.3 --from PACS
    """
    from dicomnode.commands.fetching import fetch_studies

    logs.set_up("fetch")
    settings = settings_of(config, config_option)
    if series is not None and len(study) > 1:
        raise SettingsError("--series goes with one --study")
    raise typer.Exit(fetch_studies(settings, study, series, peer, out, err, who, as_json=as_json))


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for what it makes.")
    ] = Path("demo-output"),
) -> None:
    """Show the whole job on this machine: a synthetic CT in, its results back in an archive.

    For example: dicomnode demo -o demo-output
    """
    from dicomnode.demo.demonstration import demonstrate

    raise typer.Exit(demonstrate(output, out))


COMMANDS = (segment, fetch, demo)
