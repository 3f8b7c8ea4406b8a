"""Times as an object's own time zone has them (PS3.3 C.12.1.1.8)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone


def in_zone_of(moment: datetime, offset: str) -> datetime:
    """Return a moment in the zone of a Timezone Offset From UTC, or in its own if that is none.

    Args:
        moment: of UTC where it has no zone.
        offset: `+hhmm` or `-hhmm`; anything else says nothing.
    """
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    found = re.fullmatch(r"([+-])(\d{2})(\d{2})", offset.strip())
    if not found:
        return aware
    minutes = int(found[2]) * 60 + int(found[3])
    zone = timezone(timedelta(minutes=minutes if found[1] == "+" else -minutes))
    return aware.astimezone(zone)
