"""A sender in the test's own process: real files, a ledger with a clock that stands, a socket."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from archives import COMPREHENSIVE, COMPREHENSIVE_3D, LABEL_MAP, PICTURE, SEGMENTATION
from ledger_kit import QUIET_SECONDS, claimed, close, header, receive, rows
from peers import HOST
from small_ct import encoded, instance

from dicomnode.domain.identifiers import (
    InstanceUID,
    SeriesUID,
    SOPClassUID,
    TransferSyntaxUID,
)
from dicomnode.domain.plans import FILES, file_name
from dicomnode.domain.records import StoredResult
from dicomnode.domain.routing import Choice
from dicomnode.instances import file_prefix
from dicomnode.ledger import Ledger, completing, nodes
from dicomnode.ledger.schema import upgrade
from dicomnode.ledger.tables import delivery, destination, event, result
from dicomnode.services.common import Context
from dicomnode.services.send import sender_of
from dicomnode.settings import Settings, parse
from dicomnode.spool import Spool

EXPLICIT = "1.2.840.10008.1.2.1"
FORMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "seg": (SEGMENTATION, ()),
    "labelmap": (LABEL_MAP, ()),
    "preview": (PICTURE, ()),
    "sr": (COMPREHENSIVE_3D, ("seg",)),
    "sr-2": (COMPREHENSIVE, ("seg",)),
    "sr-alone": (COMPREHENSIVE_3D, ()),
    **dict.fromkeys(FILES, ("", ())),
}


class Sending:
    """A sender to the destination `archive`, and what it has to send.

    Args:
        folder: for spool and ledger.
        clock: of the ledger.
        port: of the archive.
        destination: keys of the destination; likewise `peer` and `send`.
        settings: of a node that runs beside it, instead of all these.
    """

    def __init__(
        self,
        folder: Path,
        clock: Any,
        port: int,
        *,
        destination: Mapping[str, Any] | None = None,
        peer: Mapping[str, Any] | None = None,
        send: Mapping[str, Any] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.clock = clock
        document = {
            "node": {"ae_title": "DICOMNODE", "id": "node-1"},
            "peers": {
                "ARCHIVE": {"ae_title": "ARCHIVE", "host": HOST, "port": port, **(peer or {})}
            },
            "destinations": {"archive": {"peer": "ARCHIVE", **(destination or {})}},
            "send": {"timeout_seconds": 2.0, **(send or {})},
            "storage": {"folder": str(folder)},
        }
        self.settings = settings or parse(yaml.safe_dump(document), folder / "dicomnode.yaml")
        self.spool = Spool(self.settings.spool_folder, "send")
        self.spool.create()
        self.ledger = Ledger(self.settings.ledger_url, "node-1", clock)
        upgrade(self.ledger)
        if settings is None:
            with self.ledger.transaction() as tx:
                nodes.register_node(tx, "DICOMNODE", "key-1")
        self.stop = threading.Event()
        self.context = Context(
            settings=self.settings,
            spool=self.spool,
            ledger=self.ledger,
            patient_key=b"key",
            stop=self.stop,
        )
        self.sender = sender_of(self.context, "archive")
        self._numbers = itertools.count(1)

    def give(
        self,
        *names: str,
        profile: Sequence[str] = ("seg", "preview", "sr"),
        stat: bool = False,
        patient: Mapping[str, Any] | None = None,
        size: int = 0,
    ) -> int:
        """Have a study analysed; return the job's id.

        Args:
            names: what is made, of `FORMS`.
            profile: kinds that the archive is to get.
            stat: it is urgent.
            patient: attributes of the results.
            size: bytes of pixels that each has more.
        """
        number = next(self._numbers)
        study = f"1.2.{number}"
        receive(self.ledger, header(f"{study}.3.1", study=study, series=f"{study}.3"))
        self.clock.forward(QUIET_SECONDS)
        choice = Choice(
            model="demo", rule="all", destinations=("archive",), why="rule 'all'", stat=stat
        )
        assert close(self.ledger, choose=lambda _series: choice) == 1
        job = claimed(self.ledger)
        made = []
        for position, name in enumerate(names or ("seg", "preview", "sr")):
            sop_class, refers_to = FORMS[name]
            uid = f"2.25.{job.id}.{position}"
            dataset = instance(
                SOPClassUID=sop_class or SEGMENTATION,
                SOPInstanceUID=uid,
                StudyInstanceUID=study,
                **(patient or {}),
            )
            dataset.PixelData = dataset.PixelData + bytes(size)
            data = file_prefix(sop_class or SEGMENTATION, uid, EXPLICIT) + encoded(dataset)
            path = self.spool.result_path(job.id, f"{uid}.dcm")
            if name in FILES:
                data, path = f"{name} of {study}".encode(), f"results/{job.id}/{file_name(name)}"
            self.spool.write(path, data)
            made.append(
                StoredResult(
                    kind=name.partition("-")[0],
                    position=position,
                    sop_class_uid=SOPClassUID(sop_class),
                    sop_instance_uid=InstanceUID(uid),
                    series_uid=SeriesUID(f"2.25.{job.id}"),
                    transfer_syntax_uid=TransferSyntaxUID(EXPLICIT),
                    path=path,
                    digest=hashlib.sha256(data).hexdigest(),
                    size=len(data),
                    summary={},
                    refers_to=refers_to,
                )
            )
        with self.ledger.transaction() as tx:
            assert completing.finish(
                tx,
                job,
                made,
                deliver_to={"archive": tuple(profile)},
                not_allowed=(),
                label_map_path="",
                label_map_digest="",
                findings=(),
                timings={},
            )
        return job.id

    def send(self) -> None:
        """One round of the sender."""
        self.sender.send_due()

    def states(self) -> dict[str, str]:
        """Return SOP Instance UID -> state of its delivery."""
        uids = {row.id: row.sop_instance_uid for row in rows(self.ledger, result)}
        return {uids[row.result_id]: row.state for row in rows(self.ledger, delivery)}

    def deliveries(self) -> list[Any]:
        """Return the rows, oldest first."""
        return rows(self.ledger, delivery)

    def health(self) -> Any:
        """Return the destination's row."""
        (row,) = rows(self.ledger, destination)
        return row

    def events(self, level: str | None = None) -> list[str]:
        """Return the codes of events, oldest first."""
        return [row.code for row in rows(self.ledger, event) if level in (None, row.level)]

    def seconds_until(self, when: Any) -> float:
        """Return how long it is until a time of the ledger."""
        return float((when - self.clock.now) / timedelta(seconds=1))

    def close(self) -> None:
        """Leave the ledger."""
        self.ledger.close()
