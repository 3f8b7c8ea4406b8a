"""What `dicomnode models` shows: a card as data, and as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from dicomnode import commissioning
from dicomnode.commissioning import Entry
from inference.card import ModelCard, installed, part_installed
from inference.catalog import Catalog
from inference.weights.store import Installed

NORMALISATIONS = {
    "CT": "CT (plans' percentiles, mean and SD of HU)",
    "zscore": "zscore (less the image's own mean, over its SD)",
    "nonorm": "nonorm (values as they are)",
    "rescale_to_0_1": "rescale_to_0_1 (from the image's least to its greatest value)",
}


def describe_card(card: ModelCard) -> dict[str, Any]:
    """Return all that is known of a model, ready for JSON."""
    here = installed(card)
    return {
        "id": card.id,
        "title": card.title,
        "version": card.version,
        "family": card.family,
        "task": card.task,
        "installed": here,
        "commissioned": _commissioned(card) if here else "not installed",
        "demonstration": card.demonstration,
        "structures": [structure.name for structure in card.structures],
        "spacing_mm": list(card.spacing_mm),
        "orientation": card.orientation,
        "modality": card.modality,
        "normalisation": card.normalisation,
        "requires": asdict(card.requires),
        "step_size": card.step_size,
        "zoom_order": card.zoom_order,
        "aggregation": card.aggregation,
        "code_table": card.code_table,
        "licence": card.licence,
        "citation": card.citation,
        "intended_use": card.intended_use,
        "limits": list(card.limits),
        "figures": dict(card.figures),
        "radelement": list(card.radelement),
        "source": card.source,
        "bytes": _size(card),
        "weights_digest": card.weights_digest() if here else None,
        "parts": [
            {
                "name": part.name,
                "structures": len({label for label in part.labels if label}),
                "archive": part.archive,
                "trainer": part.trainer,
                "folder": str(part.folder),
                "installed": part_installed(part),
                "sha256": dict(part.sha256),
            }
            for part in card.parts
        ],
    }


def print_cards(console: Console, cards: list[dict[str, Any]]) -> None:
    """Print one line a model, as much of its licence as there is room for."""
    table = Table(box=None, pad_edge=False, expand=True)
    for name in ("model", "installed", "commissioned", "structures", "mm", "size"):
        table.add_column(name, no_wrap=True)
    table.add_column("licence", no_wrap=True, overflow="ellipsis", ratio=1)
    for card in cards:
        table.add_row(
            card["id"],
            "yes" if card["installed"] else "no",
            _short(card),
            str(len(card["structures"])),
            " x ".join(f"{length:g}" for length in dict.fromkeys(card["spacing_mm"])),
            f"{card['bytes'] / 1e6:,.0f} MB" if card["bytes"] else "-",
            card["licence"],
        )
    console.print(table)


def print_description(console: Console, card: dict[str, Any]) -> None:
    """Print everything, the warnings where they are seen."""

    def line(name: str, value: object) -> None:
        console.print(f"{name}: {value}", highlight=False, markup=False, soft_wrap=True)

    console.print(f"{card['id']}: {card['title']}", style="bold", markup=False, highlight=False)
    line("Intended use", card["intended_use"])
    console.print("Limits:", style="yellow")
    for limit in card["limits"]:
        console.print(f"  - {limit}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    line("Version", card["version"])
    line("Family", card["family"])
    line("Task", card["task"])
    line("For demonstration only", "yes" if card["demonstration"] else "no")
    line("Installed", "yes" if card["installed"] else "no")
    line("Commissioned", card["commissioned"] or "yes")
    line("Spacing", f"{card['spacing_mm']} mm, {card['orientation']}")
    line("Modality", card["modality"])
    line("Normalisation", NORMALISATIONS[card["normalisation"]])
    line("Requires", _requires(card["requires"]))
    line("Tiles", f"step size {card['step_size']}, {card['aggregation']}")
    line("Zoom order", card["zoom_order"])
    line("Code table", card["code_table"])
    line("Licence", card["licence"])
    line("Citation", card["citation"])
    line("Figures", ", ".join(f"{key}: {value}" for key, value in card["figures"].items()) or "-")
    line("RadElement", ", ".join(card["radelement"]) or "-")
    line("Source", card["source"] or "beside the card")
    line("Weights digest", card["weights_digest"] or "-")
    for part in card["parts"]:
        state = "installed" if part["installed"] else "not installed"
        line(f"Part {part['name']}", f"{part['structures']} structures, {state}, {part['folder']}")
    line(f"Structures ({len(card['structures'])})", ", ".join(card["structures"]))


def print_installed(console: Console, done: Sequence[Installed], catalog: Catalog) -> None:
    """Print what became of each part, and what a model still needs before it serves patients."""

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for item in done:
        state = f"installed from {item.origin}" if item.new else "was installed already"
        line(f"{item.model}: {item.part}: {state}")
    for card in map(catalog.card, dict.fromkeys(item.model for item in done)):
        rest = [part.name for part in card.parts if not part_installed(part)]
        note = f"still missing: {', '.join(rest)}" if rest else commissioning.why_not(card)
        if note:
            line(f"{card.id}: {note}")


def print_agreement(console: Console, entry: Entry) -> None:
    """Print how the model agrees with the reference, the worst structures first."""
    found = entry.agreement
    if found is not None:
        table = Table(box=None, pad_edge=False)
        for name in ("structure", "Dice", "voxels found", "voxels of the reference"):
            table.add_column(name, overflow="fold")
        for item in sorted(found.structures, key=lambda item: item.dice):
            numbers = (f"{item.dice:.4f}", f"{item.found_voxels:,}", f"{item.reference_voxels:,}")
            table.add_row(item.name, *numbers)
        console.print(table)
        console.print(f"Mean Dice {found.mean_dice:.4f}; asked for: {found.minimum:g}")
        if found.half is not None:
            console.print(
                f"16-bit floats on {found.half.device}: {found.half.differing:.3%} of the voxels"
                f" differ, least Dice {found.half.least_dice:.4f}:"
                f" {'used' if found.half.agrees else 'not used'}"
            )
    what = "commissioned" if entry.passed else "NOT commissioned"
    how = "by a reference case" if entry.how == "reference" else "without a case, by name"
    console.print(
        f"{entry.model}: {what} {how}, {entry.by}, {entry.at}; weights "
        f"{entry.weights_digest[:12]}, node {entry.node_version}",
        style=None if entry.passed else "red",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _requires(requires: dict[str, float | None]) -> str:
    names = {"gpu_memory_gib": "a GPU with {:g} GiB", "ram_gib": "{:g} GiB of RAM"}
    said = [names[key].format(value) for key, value in requires.items() if value is not None]
    return ", ".join(said) or "nothing in particular"


def _commissioned(card: ModelCard) -> str:
    """Return why the model may not serve patients; empty if it may."""
    if card.demonstration:
        return "for demonstration only"
    return commissioning.why_not(card)


def _short(card: dict[str, Any]) -> str:
    if card["demonstration"]:
        return "demo"
    return "no" if card["commissioned"] else "yes"


def _size(card: ModelCard) -> int:
    return sum(
        (part.folder / name).stat().st_size
        for part in card.parts
        if part_installed(part)
        for name in part.sha256
    )
