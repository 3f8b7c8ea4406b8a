"""Which devices the work role has, and which models it leaves to which of them."""

from __future__ import annotations

import logging
from pathlib import Path

from dicomnode.settings import Settings
from inference.catalog import CatalogError, load_catalog
from inference.devices import ask_gpus, for_others, ram_memory_gib

log = logging.getLogger(__name__)


def devices(chosen: tuple[str, ...], nodes: Path = Path("/dev")) -> tuple[str, ...]:
    """Return the devices to work on, a worker each.

    Args:
        chosen: as `work.devices` says; `auto` is every NVIDIA GPU of this machine, or the CPU
            where there is none.
        nodes: where the device nodes are. The dispatcher loads no library that could be asked.
    """
    if "auto" not in chosen:
        return tuple(dict.fromkeys(chosen))
    count = sum(1 for _ in nodes.glob("nvidia[0-9]*"))
    return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)


def left_to_others(settings: Settings, chosen: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Return for each device the models whose memory another device of this node has, and it not.

    What cannot be found out is left to nobody else: the analysis itself looks before it loads.
    """
    if len(chosen) < 2:
        return {}
    try:
        catalog = load_catalog(settings.work.model_folders, settings.weights_folder)
        models = {card.id: card.requires for card in catalog.cards.values()}
        needed = any(requires.gpu_memory_gib is not None for requires in models.values())
        gpus = ask_gpus() if needed else ()
    except (CatalogError, OSError) as error:
        log.warning("DEVICES_NOT_COMPARED", extra={"fields": {"why": str(error)[:200]}})
        return {}
    return for_others(models, chosen, ram_gib=ram_memory_gib(), gpus_gib=gpus)
