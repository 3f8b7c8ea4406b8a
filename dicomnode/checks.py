"""What `check` looks at beyond the form of the configuration."""

from __future__ import annotations

from pathlib import Path

from dicomnode import commissioning
from dicomnode.domain.routing import Rule, may_take
from dicomnode.network import tls
from dicomnode.settings import Settings, where
from inference.catalog import Catalog, CatalogError, load_catalog


def check_models(settings: Settings, path: Path) -> list[str]:
    """Return a line for every model in use that would be refused: unknown, or not ready here."""
    try:
        catalog = load_catalog(settings.work.model_folders, settings.weights_folder)
    except CatalogError as error:
        return [str(error)]
    faults = []
    for large, small in settings.work.smaller_models.items():
        fault = _fault_of_model(catalog, large) or _fault_of_model(catalog, small)
        if fault:
            faults.append(f"{where(path, f'work.smaller_models.{large}')}: {fault}")
    for index, rule in enumerate(settings.rules):
        if rule.model is None:
            continue
        fault = _fault_of_model(catalog, rule.model) or _fault_of_rule(catalog, rule)
        if fault:
            faults.append(f"{where(path, f'rules.{index}.model')}: {fault}")
    return faults


def _fault_of_model(catalog: Catalog, model: str) -> str:
    if model not in catalog.ids():
        return f"no model is named {model!r} (models: {', '.join(catalog.ids())})"
    card = catalog.card(model)
    try:
        card.weights_digest()
        return commissioning.why_not(card)
    except CatalogError as error:
        return str(error)


def _fault_of_rule(catalog: Catalog, rule: Rule) -> str:
    card = catalog.card(rule.model or "")
    if not may_take(rule, card.modality):
        return f"the model takes {card.modality}, and when.modality of its rule does not name it"
    if card.modality != "CT" and rule.options.body_crop:
        return f"the model takes {card.modality}, where options.body_crop has no meaning"
    return ""


def check_tls(settings: Settings, path: Path) -> list[str]:
    """Return a line for every certificate and key that will not do, by file, line and key."""
    found: list[tuple[str, str]] = []
    if settings.node.tls is not None:
        faults = tls.faults_of_server(settings.node.tls)
        found += [(f"node.tls.{key}", fault) for key, fault in faults]
    for name, peer in settings.peers.items():
        if peer.tls is not None:
            faults = tls.faults_of_peer(peer.tls)
            found += [(f"peers.{name}.tls.{key}", fault) for key, fault in faults]
    repository = settings.audit.syslog
    if repository is not None and repository.transport == "tls":
        faults = tls.faults_of_peer(repository.tls)
        found += [(f"audit.syslog.tls.{key}", fault) for key, fault in faults]
    return [f"{where(path, key)}: {fault}" for key, fault in found]
