"""`dicomnode models`: what there is, getting weights, checking them, and commissioning.

Exit codes as everywhere; `verify` ends with 1 if a file is missing or differs,
`commission` with 1 if the agreement is below the minimum.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from dicomnode.commands import completing
from dicomnode.commands.common import FAILED, AsJson, out, say
from dicomnode.errors import DicomnodeError, SettingsError
from dicomnode.model_views import (
    describe_card,
    print_cards,
    print_description,
    print_installed,
)
from dicomnode.settings import load
from inference.card import (
    CatalogError,
    ModelCard,
    WeightsError,
    installed,
    verify,
)
from inference.catalog import Catalog, load_catalog
from inference.weights.download import Report
from inference.weights.store import Installed
from inference.weights.store import bring as bring_weights
from inference.weights.store import install as install_weights

app = typer.Typer(help="List, install, verify and commission models.", no_args_is_help=True)
log = logging.getLogger(__name__)

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML configuration, for its folders.", show_default=False),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Weights folder; default: as configured, $DICOMNODE_WEIGHTS, or beside the ledger.",
        show_default=False,
    ),
]
ModelFolder = Annotated[
    list[Path] | None, typer.Option(help="A folder with more model cards; again for more.")
]
Model = Annotated[
    str, typer.Argument(metavar="ID", help="Of the catalog.", autocompletion=completing.models)
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Trust files other than those recorded at first.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where cards and weights are."""

    folders: tuple[Path, ...]
    weights: Path

    def catalog(self) -> Catalog:
        """Read the cards."""
        return load_catalog(self.folders, self.weights)


@app.command("list")
def list_models(
    config: Config = None,
    weights: Weights = None,
    model_folder: ModelFolder = None,
    as_json: AsJson = False,
) -> None:
    """List the models: installed or not, structures, spacing, licence.

    For example: dicomnode models list
    """
    with named_errors():
        catalog = place_of(config, weights, model_folder).catalog()
        cards = [describe_card(catalog.card(model_id)) for model_id in catalog.ids()]
    if as_json:
        say(cards)
    else:
        print_cards(out, cards)


@app.command()
def show(
    model: Model,
    config: Config = None,
    weights: Weights = None,
    model_folder: ModelFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show all that a model's card says: intended use, limits, figures, parts, commissioning.

    For example: dicomnode models show demo
    """
    with named_errors():
        description = describe_card(card_of(place_of(config, weights, model_folder), model))
    if as_json:
        say(description)
    else:
        print_description(out, description)


@app.command()
def install(
    model: Model,
    address: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="Where the archives stand, if elsewhere."),
    ] = None,
    config: Config = None,
    weights: Weights = None,
    model_folder: ModelFolder = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Fetch and install a model's weights; goes on where an earlier attempt was cut.

    For example: dicomnode models install total-v2-fast
    """
    with named_errors():
        place = place_of(config, weights, model_folder)
        with _progress(quiet=as_json) as report:
            done = install_weights(
                card_of(place, model), address=address, report=report, replace=replace
            )
        _say_installed(done, place, as_json)


@app.command("import")
def import_models(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Zip archives, unpacked folders, or a whole ~/.totalsegmentator."),
    ],
    config: Config = None,
    weights: Weights = None,
    model_folder: ModelFolder = None,
    model: Annotated[
        str | None, typer.Option(help="Only parts of this model.", metavar="ID")
    ] = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Install weights that were carried here.

    For example: dicomnode models import ~/.totalsegmentator
    """
    with named_errors():
        place = place_of(config, weights, model_folder)
        done: list[Installed] = []
        for path in paths:
            catalog = place.catalog()
            ids = catalog.ids() if model is None else (model,)
            cards = [catalog.card(model_id) for model_id in ids]
            with _progress(quiet=as_json) as report:
                done += bring_weights(cards, path, report=report, replace=replace)
        _say_installed(done, place, as_json)


@app.command("verify")
def verify_models(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="Default: every installed model.", autocompletion=completing.models
        ),
    ] = None,
    config: Config = None,
    weights: Weights = None,
    model_folder: ModelFolder = None,
    as_json: AsJson = False,
) -> None:
    """Compare the files of models with their recorded SHA-256.

    For example: dicomnode models verify demo
    """
    with named_errors():
        place = place_of(config, weights, model_folder)
        catalog = place.catalog()
        cards = [catalog.card(model_id) for model_id in catalog.ids()]
        wanted = [card_of(place, model)] if model else [card for card in cards if _begun(card)]
    faults = {card.id: _fault(card) for card in wanted}
    if as_json:
        say([{"model": key, "good": not value, "fault": value} for key, value in faults.items()])
    else:
        for key, value in faults.items():
            style = "red" if value else None
            text = f"{key}: {value or 'good'}"
            out.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(FAILED if any(faults.values()) else 0)


def place_of(config: Path | None, weights: Path | None, folders: list[Path] | None) -> Place:
    settings = load(config)
    return Place(
        folders=(*settings.work.model_folders, *(folders or ())),
        weights=(weights or settings.weights_folder).absolute(),
    )


def card_of(place: Place, model: str) -> ModelCard:
    return place.catalog().card(model)


def _begun(card: ModelCard) -> bool:
    return any(part.sha256 for part in card.parts)


def _fault(card: ModelCard) -> str:
    try:
        verify(card)
    except WeightsError as error:
        return str(error)
    return "" if installed(card) else "not installed"


@contextmanager
def named_errors() -> Iterator[None]:
    """Tell a fault of weights (exit code 1) from one of cards and arguments (2)."""
    try:
        yield
    except WeightsError as error:
        raise DicomnodeError(str(error)) from error
    except CatalogError as error:
        raise SettingsError(str(error)) from error


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns,
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    ) as bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total or None)
            bar.update(tasks[what], completed=done, total=total or None)

        yield report


def _say_installed(done: Sequence[Installed], place: Place, as_json: bool) -> None:
    if as_json:
        say([asdict(part) for part in done])
    else:
        print_installed(out, done, place.catalog())
