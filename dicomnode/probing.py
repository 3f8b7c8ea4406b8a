"""What a destination takes, asked by storing nothing; and so what it would get."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID

from dicomnode.conformance import CREATED, EXPLICIT, IMPLICIT, RLE, UNNAMED
from dicomnode.deflating import DEFLATED, transfer_syntaxes
from dicomnode.domain.alternatives import in_preference, needed, reports
from dicomnode.domain.commitment import PUSH_MODEL
from dicomnode.domain.identifiers import SOPClassUID
from dicomnode.domain.outcomes import Done
from dicomnode.domain.plans import FILES, SR
from dicomnode.errors import SettingsError
from dicomnode.network.scu import ConnectError, StorageAssociation, associate
from dicomnode.settings import Settings

ASKED_IN = (DEFLATED, RLE, EXPLICIT, IMPLICIT)
"""Transfer Syntaxes that each SOP Class is proposed in."""
Facts = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """An object that may be made, as the choice of alternatives wants to know it."""

    kind: str
    sop_class_uid: SOPClassUID
    refers_to: tuple[str, ...] = ()


def would_get(takes: Sequence[str], refused: Collection[SOPClassUID]) -> dict[str, Object | None]:
    """Return what goes for each kind of a destination's profile; None: nothing does.

    Args:
        takes: the kinds, in the order in which they are sent.
        refused: SOP Classes that the destination does not take.
    """
    kinds = set(needed(takes))
    made = [
        Object(kind=kind, sop_class_uid=sop_class)
        for kind, sop_class, _ in CREATED
        if kind in kinds and kind != SR
    ]
    made += [
        Object(kind=SR, sop_class_uid=form.sop_class_uid, refers_to=form.refers_to)
        for form in reports([takes])
    ]
    found: dict[str, Object | None] = {}
    for kind in takes:
        took = {one.kind for one in found.values() if one is not None}
        options = in_preference(made, kind, took, refused)
        found[kind] = next((one for one in options if one.kind not in took), None)
    return found


def probe(settings: Settings, name: str) -> Facts:
    """Ask a destination what it takes, by C-ECHO and by what it accepts of an association.

    Raises:
        SettingsError: there is no such destination, or it is none that is spoken to by DIMSE.
    """
    if name not in settings.destinations:
        known = ", ".join(settings.destinations) or "none"
        raise SettingsError(f"no destination is named {name!r} (destinations: {known})")
    peer = settings.peer_of(name)
    if peer is None or peer.port is None or settings.destinations[name].stow_url is not None:
        raise SettingsError(f"destinations.{name}: `probe` asks peers; try `dicomnode echo {name}`")
    classes = list(dict.fromkeys(sop_class for _, sop_class, _ in CREATED))
    contexts = [(one, syntax) for one in classes for syntax in ASKED_IN]
    contexts += [(SOPClassUID(PUSH_MODEL), syntax) for syntax in (EXPLICIT, IMPLICIT)]
    facts: Facts = {
        "destination": name,
        "called_ae": peer.ae_title,
        "address": f"{peer.host}:{peer.port}",
        "answer": "DONE",
        "detail": "",
        "echo": "",
    }
    try:
        with associate(
            calling_ae=settings.node.ae_title,
            called_ae=peer.ae_title,
            host=peer.host,
            port=peer.port,
            contexts=contexts,
            timeout_seconds=settings.send.timeout_seconds,
            tls=peer.tls,
        ) as association:
            facts["tls"] = association.tls
            facts |= _taken(association, settings.destinations[name].takes)
            echo = association.echo()
            facts["echo"] = echo.code
            if not isinstance(echo, Done):
                facts |= {"answer": echo.code, "detail": echo.detail}
    except ConnectError as error:
        facts |= {"answer": error.code, "detail": error.detail}
    return facts


def _taken(association: StorageAssociation, takes: Sequence[str]) -> Facts:
    objects, refused = [], set()
    for kind, sop_class, stored_in in CREATED:
        accepted = [one for one in ASKED_IN if association.takes(sop_class, one)]
        usable = [one for one in transfer_syntaxes(sop_class, stored_in) if one in accepted]
        if not usable:
            refused.add(sop_class)
        objects.append(
            {
                "kind": kind,
                "sop_class_uid": sop_class,
                "sop_class": _name(sop_class),
                "accepts": [_name(one) for one in accepted],
                "sent_in": _name(usable[0]) if usable else None,
            }
        )
    gets = would_get([kind for kind in takes if kind not in FILES], refused)
    return {
        "objects": objects,
        "commitment": any(association.takes(PUSH_MODEL, one) for one in (EXPLICIT, IMPLICIT)),
        "profile": [
            {
                "wanted": kind,
                "gets": None if one is None else one.kind,
                "sop_class": None if one is None else _name(one.sop_class_uid),
                "refers_to": [] if one is None else list(one.refers_to),
            }
            for kind, one in gets.items()
        ],
    }


def _name(uid: str) -> str:
    return UNNAMED.get(uid) or str(UID(uid).name)
