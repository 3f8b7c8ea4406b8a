"""`dicomnode recover`: a node whose ledger was lost, or is older than its spool, comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dicomnode.backup import restore_backup
from dicomnode.services.common import open_context
from dicomnode.services.desk import Desk
from dicomnode.services.recovery import recover
from dicomnode.services.supervise import ROLES
from dicomnode.settings import Settings
from dicomnode.spool import Spool


def recover_node(settings: Settings, backup: Path | None) -> Iterator[str]:
    """Restore a backup if one is given, then settle spool and ledger; yield what was done.

    Raises:
        BackupError: the backup cannot be restored.
        RoleIsRunningError: a role of this node runs.
        LedgerError: the ledger cannot be used, as where it is damaged.
    """
    spool = Spool(settings.spool_folder, "receive")
    with contextlib.ExitStack() as stack:
        for role in ROLES:
            stack.enter_context(spool.only(role))
        if backup is not None:
            yield from restore_backup(settings, backup)
        context = open_context(settings, "receive")
        try:
            desk = Desk(context)
            found = recover(context, desk)
            desk.close()
        finally:
            context.ledger.close()
    yield f"{found.registered} files without a row were registered"
    yield f"{found.lost} rows have no file any more; send what they name again"
    yield f"{found.held} studies are held: `dicomnode release` analyses them again"
    for path in found.unreadable:
        yield f"{path} cannot be read; it stays where it is"
