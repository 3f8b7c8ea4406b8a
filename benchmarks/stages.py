"""Where the time of one instance goes: the receiver's stages, one after the other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from dicomnode.domain.associations import AssociationRequest
from dicomnode.instances import Headers, split_file
from dicomnode.ledger import Ledger, nodes
from dicomnode.ledger.schema import upgrade
from dicomnode.services.common import Context
from dicomnode.services.desk import Desk, Item, Seat
from dicomnode.services.messages import Ask, Store
from dicomnode.settings import Settings
from dicomnode.spool import Spool

FRAGMENT = 131072 - 6
KEY = b"k" * 32


def stages(paths: Sequence[Path], folder: Path) -> None:
    """Print the milliseconds of each stage for these files, measured below `folder`."""
    folder.mkdir()
    spool = Spool(folder / "spool", "receive")
    spool.create()
    ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}", "bench")
    upgrade(ledger)
    with ledger.transaction() as tx:
        nodes.register_node(tx, "DICOMNODE", "key")
    peers = {"CT": {"ae_title": "MODALITY", "host": "127.0.0.1", "accept": True}}
    settings = Settings.model_validate({"peers": peers, "storage": {"folder": folder}})
    context = Context(
        settings=settings, spool=spool, ledger=ledger, patient_key=KEY, stop=threading.Event()
    )
    seconds: dict[str, float] = {}
    desk, headers = Desk(context), Headers(KEY)
    for count in (1, 4):
        seats = [Seat() for _ in range(count)]
        ask = Ask(AssociationRequest(calling_ae="MODALITY", called_ae="DICOMNODE", address="::1"))
        desk.serve([Item(seat, ask) for seat in seats])
        chosen = paths[: len(paths) // 2] if count == 1 else paths[len(paths) // 2 :]
        stores = [_arrive(path, spool, headers, seconds) for path in chosen]
        started = time.perf_counter()
        for first in range(0, len(stores), count):
            group = stores[first : first + count]
            desk.serve([Item(seat, one) for seat, one in zip(seats, group, strict=False)])
        name = f"names, folder, rows and commit, {count} at a time"
        seconds[name] = (time.perf_counter() - started) * len(paths) / len(stores)
    ledger.close()
    print("\n| stage of one instance | ms |\n|---|---|")
    for name, total in seconds.items():
        print(f"| {name} | {total / len(paths) * 1000:.2f} |")


def _arrive(path: Path, spool: Spool, headers: Headers, seconds: dict[str, float]) -> Store:
    data = path.read_bytes()
    syntax, start = split_file(data)
    tmp = spool.take_place()
    view = memoryview(data)[start:]

    def timed(name: str, since: float) -> float:
        now = time.perf_counter()
        seconds[name] = seconds.get(name, 0.0) + now - since
        return now

    at = time.perf_counter()
    with tmp.open("wb", buffering=0) as file:
        for place in range(0, len(view), FRAGMENT):
            file.write(view[place : place + FRAGMENT])
        at = timed("write to the temporary file (as it arrives)", at)
        reader = headers.begin(syntax)
        for place in range(0, len(view), FRAGMENT):
            reader.feed(view[place : place + FRAGMENT])
        header, digest = reader.finish(lambda: path.open("rb"))
        at = timed("header and digests (as it arrives)", at)
        os.fdatasync(file.fileno())
        timed("synchronise the file", at)
    return Store(
        header=header,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        digest=digest,
        size=len(view),
        tmp=tmp.name,
    )
