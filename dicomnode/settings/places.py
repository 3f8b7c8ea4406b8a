"""Relative places in a configuration are relative to the file that names them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dicomnode.settings.models import Settings


def place(settings: Settings, base: Path) -> Settings:
    """Make relative places relative to the configuration file's folder."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else base / path.expanduser()

    def placed(tls: Any, *names: str) -> Any:
        return tls and replace(tls, **{name: absolute(getattr(tls, name)) for name in names})

    storage = settings.storage.model_copy(
        update={
            "folder": absolute(settings.storage.folder),
            "patient_key_file": absolute(settings.storage.patient_key_file),
        }
    )
    folders = tuple(base / folder.expanduser() for folder in settings.work.model_folders)
    work = settings.work.model_copy(
        update={
            "model_folders": folders,
            "weights_folder": absolute(settings.work.weights_folder),
        }
    )
    tls = placed(settings.node.tls, "certificate", "key", "client_ca")
    web = placed(settings.web, "certificate", "key", "users_file")
    peers = {
        name: peer.model_copy(update={"tls": placed(peer.tls, "ca", "certificate", "key")})
        for name, peer in settings.peers.items()
    }
    destinations = {
        name: replace(where, stow_ca=str(base / Path(where.stow_ca).expanduser()))
        if where.stow_ca
        else where
        for name, where in settings.destinations.items()
    }
    node = settings.node.model_copy(update={"tls": tls})
    audit = replace(
        settings.audit,
        file=placed(settings.audit.file, "folder"),
        syslog=settings.audit.syslog
        and replace(
            settings.audit.syslog,
            tls=placed(settings.audit.syslog.tls, "ca", "certificate", "key"),
        ),
    )
    return settings.model_copy(
        update={
            "storage": storage,
            "work": work,
            "node": node,
            "peers": peers,
            "destinations": destinations,
            "web": web,
            "audit": audit,
        }
    )
