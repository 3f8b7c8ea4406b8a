"""What `check` and `echo` look at beyond the form of the configuration."""

from __future__ import annotations

from pathlib import Path

from dicomnode import commissioning
from dicomnode.domain.identifiers import derive_uid
from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry
from dicomnode.domain.routing import Rule, may_take
from dicomnode.domain.web import Web
from dicomnode.errors import SettingsError
from dicomnode.network import tls
from dicomnode.network.progress import Pace
from dicomnode.network.query import find_study
from dicomnode.network.scu import ConnectError, associate
from dicomnode.network.stow import SecretError, StowService, find_credentials
from dicomnode.services.peers import call_of
from dicomnode.settings import Settings, where
from inference.catalog import Catalog, CatalogError, load_catalog


def check_models(settings: Settings, path: Path) -> list[str]:
    """Return a line for every rule whose model would be refused: unknown, or not ready here."""
    try:
        catalog = load_catalog(settings.work.model_folders, settings.weights_folder)
    except CatalogError as error:
        return [str(error)]
    faults = []
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
    return [f"{where(path, key)}: {fault}" for key, fault in found]


def echo_destination(settings: Settings, name: str) -> Outcome:
    """Ask a destination for Verification."""
    if name not in settings.destinations:
        raise SettingsError(
            f"no destination is named {name!r} (destinations: {', '.join(settings.destinations)})"
        )
    web = settings.destinations[name].web
    if web is not None:
        return _probe(web, settings.send.timeout_seconds)
    peer = settings.peer_of(name)
    if peer is None or peer.port is None:
        return Refuse("NO_PORT", "the peer has no port")
    try:
        with associate(
            calling_ae=settings.node.ae_title,
            called_ae=peer.ae_title,
            host=peer.host,
            port=peer.port,
            contexts=(),
            timeout_seconds=settings.send.timeout_seconds,
            tls=peer.tls,
        ) as association:
            return association.echo()
    except ConnectError as error:
        return Retry(error.code, error.detail)


def _probe(web: Web, timeout_seconds: float) -> Outcome:
    try:
        credentials = find_credentials(web)
    except SecretError as error:
        return Refuse("NO_SECRET", str(error))
    service = StowService(web, credentials, timeout_seconds, Pace(None), lambda: False)
    try:
        return service.probe()
    finally:
        service.close()


def query_peer(settings: Settings, name: str) -> Outcome:
    """Ask a peer by C-FIND for a study that nobody has: whether it answers queries of this node."""
    if name not in settings.peers:
        raise SettingsError(f"no peer is named {name!r} (peers: {', '.join(settings.peers)})")
    peer = settings.peers[name]
    if not peer.query:
        raise SettingsError(f"peers.{name}: may not be asked: it lacks `query: true`")
    answer = find_study(call_of(settings, peer), derive_uid("dicomnode echo"))
    return answer if isinstance(answer, Retry | Refuse) else Done()
