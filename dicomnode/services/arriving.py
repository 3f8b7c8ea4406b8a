"""An association as its acceptor process sees it: bytes to the spool, facts to the receive role.

The bytes of an instance go to a temporary file while they arrive, whatever their number; nothing
here holds more of them than the network's buffer does. An instance that the
ledger has not heard of is stored; of any other the receive role, which alone writes to the ledger,
decides what becomes of it and what the peer hears.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from dicomnode.domain import admission
from dicomnode.domain.admission import Decision, Fate
from dicomnode.domain.records import Header
from dicomnode.instances import Headers, UnreadableError, file_prefix, same_image, seals
from dicomnode.instances.seals import Seal
from dicomnode.network.association import Answer, Outcome, StoreRequest
from dicomnode.services.messages import Compare, GoneError, Line, Note, Settle, Store
from dicomnode.services.newness import Newness
from dicomnode.services.reporting import ArrivingReport
from dicomnode.spool import Spool

log = logging.getLogger(__name__)

BLOCK = 1 << 18
"""Bytes that are written at once, at multiples of it, whatever a peer's fragments are: large pieces
of a file cost the page cache less."""
SPARE_BLOCKS = 8


class Blocks:
    """Buffers of `BLOCK` bytes, used again: new memory is slow."""

    def __init__(self) -> None:
        self._spare: list[memoryview] = []

    def take(self) -> memoryview:
        """Return one, whatever it holds."""
        try:
            return self._spare.pop()
        except IndexError:
            return memoryview(bytearray(BLOCK))

    def give(self, block: memoryview) -> None:
        """Take one back."""
        if len(self._spare) < SPARE_BLOCKS:
            self._spare.append(block)


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What all associations of an acceptor process share."""

    spool: Spool
    headers: Headers
    min_free_bytes: int
    max_instance_bytes: int
    newness: Newness | None = None
    """None: of each instance the desk decides before its sender is answered."""
    blocks: Blocks = field(default_factory=Blocks)


class Sender:
    """An established association, with its own line to the desk."""

    def __init__(
        self, house: House, desk: Line, calling_ae: str, association_id: int | None = None
    ) -> None:
        self._house = house
        self._desk = desk
        self._calling_ae = calling_ae
        self._association_id = association_id

    def store(self, request: StoreRequest) -> ArrivingInstance:
        """A data set begins."""
        return ArrivingInstance(
            self._house, self._desk, request, self._calling_ae, self._association_id
        )

    def settle(self) -> None:
        """Have the rows written of what was stored: whoever sees the association end finds them."""
        with suppress(GoneError):
            self._desk.ask(Settle())

    def commitment(self, field: int, transfer_syntax: str) -> ArrivingReport:
        """A data set of storage commitment begins."""
        return ArrivingReport(self._desk, field, transfer_syntax)

    def close(self, outcome: Outcome) -> None:
        """The association ended."""
        self._desk.leave(outcome)


class ArrivingInstance:
    """One C-STORE request: its data set goes to a file; then the receive role decides."""

    def __init__(
        self,
        house: House,
        desk: Line,
        request: StoreRequest,
        calling_ae: str,
        association_id: int | None,
    ) -> None:
        self._house = house
        self._desk = desk
        self._request = request
        self._calling_ae = calling_ae
        self._association_id = association_id
        self._is_claimed = False
        self._sealed: Store | None = None
        self._reader = house.headers.begin(request.transfer_syntax_uid)
        self._tmp = house.spool.arriving
        self._prefix = _prefix(request)
        self._block: memoryview | None = None
        self._filled = self._read = self._written = 0
        self._size = 0
        self._file = -1
        self._refusal: Decision | None = None
        try:
            if house.spool.free_bytes() < house.min_free_bytes:
                self._refusal = admission.NO_SPACE
            else:
                self._tmp = house.spool.take_place()
                self._file = os.open(self._tmp, os.O_RDWR)
                self._block = house.blocks.take()
                self._filled = self._read = len(self._prefix)
                self._block[: self._filled] = self._prefix
        except OSError:
            self._refuse(admission.NO_LEDGER)
            log.exception("STORAGE_FAILED")

    def write(self, fragment: memoryview) -> bool:
        """Take the next bytes; False where there is no end of them."""
        self._size += len(fragment)
        limit = self._house.max_instance_bytes
        if self._refusal is None and self._size > limit:
            self._refuse(admission.TOO_LARGE)
        if self._refusal is not None:
            return self._size <= 2 * limit
        try:
            self._take(fragment)
        except OSError:
            self._refuse(admission.NO_LEDGER)
            log.exception("STORAGE_FAILED")
        return True

    def finish(self) -> Answer:
        """Have the instance stored, refused or set aside; return what the peer hears."""
        try:
            decision = self._finish()
        except OSError:
            log.exception("STORAGE_FAILED")
            decision = admission.NO_LEDGER
        except GoneError:
            decision = admission.NO_LEDGER
        if decision.status == admission.SUCCESS:
            return Answer(status=admission.SUCCESS)
        log.warning(
            "INSTANCE_REFUSED",
            extra={
                "fields": {
                    "status": f"0x{decision.status:04X}",
                    "code": decision.code,
                    "calling_ae": self._calling_ae,
                    "detail": decision.detail,
                }
            },
        )
        return Answer(status=decision.status, comment=decision.code)

    def close(self) -> None:
        """Have the row of a sealed file written; of any other leave nothing behind.

        What was published has another name by now. A sealed file that the desk does not hear of,
        because this process dies, is found by it.
        """
        block, self._block = self._block, None
        if block is not None:
            self._house.blocks.give(block)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if self._sealed is None:
                self._tmp.unlink(missing_ok=True)
        if self._sealed is not None:
            self._desk.stored(self._sealed)
            self._sealed = None
        elif self._is_claimed and self._house.newness is not None:
            self._house.newness.forget(self._request.sop_instance_uid)
        self._is_claimed = False

    def _finish(self) -> Decision:
        if self._refusal is not None:
            return self._decision(Note(None, self._refusal, self._size))
        self._have_read()
        try:
            header, digest = self._reader.finish(self._again)
        except UnreadableError as error:
            return self._set_aside(None, admission.unparseable(str(error)))
        store = Store(
            header=header,
            sop_class_uid=self._request.sop_class_uid,
            sop_instance_uid=self._request.sop_instance_uid,
            digest=digest,
            size=self._size,
            tmp=self._tmp.name,
        )
        if self._prefix and self._is_plain(header) and self._claim():
            self._seal(digest)
            self._synchronise()
            self._sealed = store
            return admission.STORED
        self._synchronise()
        answer: Decision | Compare = self._desk.ask(store)
        if isinstance(answer, Compare):
            first = self._house.spool.path(answer.path)
            same = same_image(self._tmp, first, decode=answer.decode)
            decision = self._decision(replace(store, compared=True, same_image=same))
        else:
            decision = answer
        if decision.fate is Fate.QUARANTINE:
            return self._set_aside(header, decision)
        return decision

    def _claim(self) -> bool:
        newness = self._house.newness
        self._is_claimed = newness is not None and newness.claim(self._request.sop_instance_uid)
        return self._is_claimed

    def _is_plain(self, header: Header) -> bool:
        """Whether a new one like it is stored whatever else the ledger knows."""
        return (
            header.sop_instance_uid == self._request.sop_instance_uid
            and header.sop_class_uid == self._request.sop_class_uid
            and header.rejection is None
        )

    def _seal(self, digest: str) -> None:
        """Make the file known for one whose sender may hear Success: the last that is written."""
        seal = seals.encode(
            Seal(size=self._size, digest=digest, association_id=self._association_id)
        )
        if self._written or self._block is None:
            os.pwrite(self._file, seal, 0)
        else:
            self._block[: len(seal)] = seal

    def _decision(self, message: Store | Note) -> Decision:
        decision: Decision = self._desk.ask(message)
        return decision

    def _set_aside(self, header: Header | None, decision: Decision) -> Decision:
        self._synchronise()
        # By it the retention finds whether the study is held.
        about = {} if header is None else {"sop_instance_uid": header.sop_instance_uid}
        place = self._house.spool.put_into_quarantine(
            self._tmp,
            {
                **about,
                "code": decision.code,
                "detail": decision.detail,
                "status": decision.status,
                "calling_ae": self._calling_ae,
                "transfer_syntax_uid": self._request.transfer_syntax_uid,
                # By it a person who puts it back has it come from the same sender.
                **(
                    {} if self._association_id is None else {"association_id": self._association_id}
                ),
            },
        )
        told = replace(decision, detail=f"{decision.detail}; bytes kept in {place}")
        return self._decision(Note(header, told, self._size))

    def _refuse(self, decision: Decision) -> None:
        self._refusal = decision
        self.close()

    def _take(self, data: memoryview) -> None:
        """Put bytes into the block; write it whenever it is full."""
        while data and self._block is not None:
            step = min(len(data), BLOCK - self._filled)
            self._block[self._filled : self._filled + step] = data[:step]
            self._filled += step
            data = data[step:]
            if self._filled == BLOCK:
                self._write()

    def _have_read(self) -> None:
        """Let the reader see what of the block it has not seen."""
        if self._block is not None and self._read < self._filled:
            self._reader.feed(self._block[self._read : self._filled])
            self._read = self._filled

    def _write(self) -> None:
        """Write the block to the file."""
        if self._block is None:
            return
        self._have_read()
        view = self._block[: self._filled]
        while view:
            done = os.write(self._file, view)
            self._written += done
            view = view[done:]
        self._filled = self._read = 0

    def _synchronise(self) -> None:
        """Have all of the file on disk."""
        self._write()
        os.fdatasync(self._file)

    def _again(self) -> BinaryIO:
        self._write()
        opened = self._tmp.open("rb")
        opened.seek(len(self._prefix))
        return opened


def _prefix(request: StoreRequest) -> bytes:
    try:
        return file_prefix(
            request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid
        )
    except ValueError:
        # The request's UIDs cannot even stand in File Meta Information: keep the bare data set.
        return b""
