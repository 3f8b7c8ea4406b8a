"""Look the installed packages up among known vulnerabilities, with pip-audit.

`python tests/audit_dependencies.py` ends with 1 where one is found. Where neither PyPI's nor OSV's
data can be reached nothing was audited: it says so and ends with 0, because the network is no fault
of the packages. pip-audit itself says "none found" where a mirror of PyPI has no such data at all.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass

SERVICES = (("pypi",), ("osv",))
AWAY = re.compile(r"ConnectionError|Timeout|ServiceError|HTTPError|SSLError|[Ff]ailed to connect")
OWN = "dicomnode"
TIMEOUT_SECONDS = 1200


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one service knew."""

    audited: int = 0
    unknown: tuple[str, ...] = ()
    """Packages that it has no data on."""
    vulnerable: tuple[str, ...] = ()
    """A line for each vulnerability."""
    away: str = ""
    """Why there was no answer."""


def ask(service: Sequence[str], target: Sequence[str]) -> Answer:
    """Run pip-audit.

    Args:
        service: arguments of `--vulnerability-service`, and what else belongs to it.
        target: arguments that say what is audited.

    Raises:
        RuntimeError: it failed, and not for want of a network.
    """
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(
        [*command, *target, "-s", *service],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return read(done.returncode, done.stdout, done.stderr)


def read(code: int, stdout: str, stderr: str) -> Answer:
    """Return what pip-audit said.

    Raises:
        RuntimeError: it failed, and not for want of a network.
    """
    try:
        found = json.loads(stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (stderr.strip().splitlines() or ["no output"])[-1][:300]
        if code == 1 and AWAY.search(stderr):
            return Answer(away=last)
        raise RuntimeError(f"pip-audit ended with {code}: {last}") from None
    return Answer(
        audited=sum("vulns" in one for one in found),
        unknown=tuple(one["name"] for one in found if "vulns" not in one and one["name"] != OWN),
        vulnerable=tuple(
            f"{one['name']} {one['version']}: {fault['id']}"
            f" (mended in {', '.join(fault['fix_versions']) or 'no version yet'})"
            for one in found
            for fault in one.get("vulns", [])
        ),
    )


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main(services: Sequence[Sequence[str]] = SERVICES, target: Sequence[str] | None = None) -> int:
    """Ask one service after the other until one knows something; return the exit code."""
    if target is None:
        target = ("--path", sysconfig.get_path("purelib"))
    away = []
    for service in services:
        answer = ask(service, target)
        if answer.vulnerable:
            say("\n".join(("VULNERABLE:", *answer.vulnerable)))
            return 1
        if answer.audited:
            say(f"{answer.audited} packages audited by {service[0]}: no known vulnerability")
            if answer.unknown:
                say(f"not audited, it has no data on them: {', '.join(answer.unknown)}")
            return 0
        away.append(f"{service[0]}: {answer.away or 'it has no data on any package'}")
    say("\n".join(("SKIPPED, nothing was audited: no data on vulnerabilities here", *away)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
