"""Reports on storage commitment that come to an acceptor process; the desk decides on them."""

from __future__ import annotations

import logging

from dicomnode.errors import DicomnodeError
from dicomnode.instances import reports
from dicomnode.network import commands
from dicomnode.network.association import Answer
from dicomnode.services.messages import GoneError, Line, Reported, Wanted

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 23
"""Of a report; one item of 10,000 takes about 200 bytes."""


class ArrivingReport:
    """The data set of one N-EVENT-REPORT request, or of an N-ACTION that asks for commitment."""

    def __init__(self, desk: Line, field: int, transfer_syntax: str) -> None:
        self._desk = desk
        self._field = field
        self._syntax = transfer_syntax
        self._data = bytearray()

    def write(self, fragment: memoryview) -> bool:
        """Take the next bytes; False where there is no end of them."""
        self._data += fragment
        return len(self._data) <= MAX_BYTES

    def finish(self) -> Answer:
        """Have the report taken in; return what the peer hears."""
        try:
            status: int = self._desk.ask(self._read(bytes(self._data)))
        except GoneError:
            return Answer(status=commands.PROCESSING_FAILURE)
        except DicomnodeError as error:
            log.warning("REPORT_UNREADABLE", extra={"fields": {"detail": str(error)}})
            return Answer(status=commands.PROCESSING_FAILURE)
        return Answer(status=status)

    def _read(self, data: bytes) -> Reported | Wanted:
        if self._field == commands.N_EVENT_REPORT_RQ:
            return Reported(reports.parse(data, self._syntax))
        return Wanted(*reports.parse_request(data, self._syntax))

    def close(self) -> None:
        """Nothing more comes."""
        self._data.clear()
