"""What a power cut leaves: a run's system calls on a disk that keeps its promises and no more.

The model is the strictest that POSIX allows. Bytes are there if the file was synchronised behind
them, with fsync or fdatasync; a name is there, or gone, if its folder was synchronised behind the
change; a folder's own name is its parent's matter. Nothing else survives. What strace shows in two
halves counts for a synchronisation from its beginning, and for everything else from its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,"
    "copy_file_range,sendfile,fsync,fdatasync,sync,syncfs,sync_file_range,rename,renameat,renameat2,"
    "link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,sendto,sendmsg"
)
"""All that writes, names or synchronises, so that nothing is overlooked."""
STRACE = (
    "strace",
    "-f",
    "-yy",
    "-xx",
    "-s",
    "4000000",
    "-e",
    f"trace={CALLS}",
    "-e",
    "signal=none",
)
_LINE = re.compile(r"^(?P<pid>\d+) +(?P<rest>.*)$")
_CALL = re.compile(
    r"^(?P<name>\w+)\((?P<args>.*)\) += (?P<result>-?\d+|\?)(?P<more>.*)$", re.DOTALL
)
_PLACE = re.compile(r"^-?\w+<(?P<path>.*?)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
SYNCS = ("fsync", "fdatasync")


@dataclass(eq=False)
class File:
    """Bytes as they are, and as they would be after a power cut."""

    now: bytearray = field(default_factory=bytearray)
    kept: bytes = b""


@dataclass(eq=False)
class Folder:
    """Names as they are, and as they would be after a power cut."""

    now: dict[str, File | Folder] = field(default_factory=dict)
    kept: dict[str, File | Folder] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A system call that succeeded."""

    name: str
    args: str
    result: str
    begins: bool
    """It is the beginning of a synchronisation or of sending; what it does is yet to come."""
    key: int


def calls(trace: str) -> Iterator[Call]:
    """Yield the calls of a trace in their order, each as its beginning and as its end."""
    halves: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(trace.splitlines()):
        matched = _LINE.match(line)
        if matched is None:
            continue
        pid, rest = matched["pid"], matched["rest"]
        key, is_second = number, False
        if rest.endswith("<unfinished ...>"):
            first = rest.removesuffix("<unfinished ...>").rstrip()
            halves[pid] = (first, number)
            name, _, args = first.partition("(")
            yield Call(name, args, "", begins=True, key=number)
            continue
        resumed = re.match(r"^<\.\.\. \w+ resumed>(.*)$", rest, re.DOTALL)
        if resumed is not None:
            if pid not in halves:
                continue
            first, key = halves.pop(pid)
            rest, is_second = first + resumed[1], True
        found = _CALL.match(rest)
        if found is None:
            continue
        if not is_second:
            yield Call(found["name"], found["args"], "", begins=True, key=key)
        if found["result"].startswith("-") or found["result"] == "?":
            continue
        yield Call(found["name"], found["args"], found["result"] + found["more"], False, key)


class Disk:
    """The files below a folder, as they were synchronised when the trace began."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = self._load(root)
        self._acts: Mapping[str, Callable[[Call, list[bytes]], None]] = {
            **dict.fromkeys(("open", "openat", "creat"), self._open),
            **dict.fromkeys(("write", "pwrite64"), self._write),
            **dict.fromkeys(("rename", "renameat", "renameat2"), self._move),
            **dict.fromkeys(("link", "linkat"), self._link),
            **dict.fromkeys(("unlink", "unlinkat", "rmdir"), self._remove),
            **dict.fromkeys(("mkdir", "mkdirat"), self._make),
            **dict.fromkeys(("sendto", "sendmsg"), lambda _call, _texts: None),
            "ftruncate": self._truncate,
        }
        self._syncing: dict[int, tuple[File | Folder, bytes | dict[str, File | Folder]]] = {}

    def _load(self, path: Path) -> Folder:
        folder = Folder()
        for one in path.iterdir():
            if one.is_dir():
                folder.now[one.name] = self._load(one)
            else:
                data = one.read_bytes()
                folder.now[one.name] = File(bytearray(data), data)
        folder.kept = dict(folder.now)
        return folder

    def apply(self, call: Call, ignored: Container[str] = ()) -> bool:
        """Do what a call did; return whether what survives a power cut may have changed."""
        if call.name in ignored:
            return False
        if call.name in SYNCS:
            return self._sync(call)
        if not call.begins:
            texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(call.args)]
            act = self._acts.get(call.name)
            if act is not None:
                act(call, texts)
            else:
                here = str(self._root)
                named = here in call.args or any(here.encode() in text for text in texts)
                assert not named, f"the model does not know {call.name}"
        return False

    def write_kept(self, target: Path) -> None:
        """Write to a folder what a power cut would leave now."""
        _write_folder(self._top, target)

    def _is_here(self, path: Path) -> bool:
        return path.is_relative_to(self._root) and path != self._root

    def _names(self, path: Path) -> dict[str, File | Folder]:
        """Return the names in the folder of a path; of a path elsewhere, names of nobody."""
        if not self._is_here(path):
            return {}
        folder = self._top
        for name in path.relative_to(self._root).parts[:-1]:
            found = folder.now[name]
            assert isinstance(found, Folder), path
            folder = found
        return folder.now

    def _at(self, text: str) -> File | Folder | None:
        """Return what a file descriptor such as `7</a/file>` stands for."""
        matched = _PLACE.match(text)
        path = _path(matched["path"]) if matched else Path("/")
        if path == self._root:
            return self._top
        return self._names(path).get(path.name) if self._is_here(path) else None

    def _open(self, call: Call, _texts: list[bytes]) -> None:
        matched = re.search(r"<(.*?)>", call.result)
        path = _path(matched[1]) if matched else Path("/")
        if not self._is_here(path):
            return
        names = self._names(path)
        if path.name not in names:
            assert "O_CREAT" in call.args, f"{path} is not known"
            names[path.name] = File()
        found = names[path.name]
        if "O_TRUNC" in call.args and isinstance(found, File):
            found.now.clear()

    def _write(self, call: Call, texts: list[bytes]) -> None:
        file = self._at(call.args)
        if not isinstance(file, File):
            return
        data = b"".join(texts)[: int(call.result.split()[0])]
        # None of ours seeks: what is written without a place goes to the end.
        start = len(file.now) if call.name == "write" else int(call.args.rsplit(",", 1)[1])
        if len(file.now) < start:
            file.now.extend(bytes(start - len(file.now)))
        file.now[start : start + len(data)] = data

    def _truncate(self, call: Call, _texts: list[bytes]) -> None:
        file = self._at(call.args)
        if isinstance(file, File):
            size = int(call.args.rsplit(",", 1)[1])
            del file.now[size:]
            file.now.extend(bytes(size - len(file.now)))

    def _remove(self, _call: Call, texts: list[bytes]) -> None:
        path = Path(texts[0].decode())
        self._names(path).pop(path.name, None)

    def _make(self, _call: Call, texts: list[bytes]) -> None:
        path = Path(texts[0].decode())
        if self._is_here(path):
            self._names(path)[path.name] = Folder()

    def _link(self, _call: Call, texts: list[bytes]) -> None:
        old, new = (Path(text.decode()) for text in texts)
        self._names(new)[new.name] = self._names(old)[old.name]

    def _move(self, _call: Call, texts: list[bytes]) -> None:
        old, new = (Path(text.decode()) for text in texts)
        moved = self._names(old).pop(old.name, None)
        if moved is not None:
            self._names(new)[new.name] = moved

    def _sync(self, call: Call) -> bool:
        if call.begins:
            found = self._at(call.args)
            if isinstance(found, File):
                self._syncing[call.key] = (found, bytes(found.now))
            elif found is not None:
                self._syncing[call.key] = (found, dict(found.now))
            return False
        if call.key not in self._syncing:
            return False
        found, kept = self._syncing.pop(call.key)
        changed = found.kept != kept
        found.kept = kept  # type: ignore[assignment] - a file's bytes, or a folder's names
        return changed


def _path(text: str) -> Path:
    """Return the path of a file descriptor; strace writes its bytes as hexadecimal numbers."""
    text = text.partition("<")[0]  # of a device it says more
    return Path(bytes.fromhex(text.replace("\\x", "")).decode() if text[:2] == "\\x" else text)


def _write_folder(folder: Folder, target: Path) -> None:
    target.mkdir(mode=0o700)
    for name, one in folder.kept.items():
        if isinstance(one, Folder):
            _write_folder(one, target / name)
        else:
            (target / name).write_bytes(one.kept)


_RESPONSE = b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x80"
_SUCCESS = b"\x00\x00\x00\x09\x02\x00\x00\x00\x00\x00"
_UID = re.compile(rb"\x00\x00\x00\x10(..)\x00\x00([0-9.]+)", re.DOTALL)


def acknowledged(call: Call) -> list[str]:
    """Return the SOP Instance UIDs of C-STORE responses with status 0x0000 that a call sends.

    The Command Set is Implicit VR Little Endian (PS3.7 section 6.3.1): Command Field (0000,0100)
    8001H, Status (0000,0900), Affected SOP Instance UID (0000,1000).
    """
    if not call.begins or call.name not in ("sendto", "sendmsg", "write") or "TCP" not in call.args:
        return []
    data = b"".join(bytes.fromhex(t.replace("\\x", "")) for t in _TEXT.findall(call.args))
    if _RESPONSE not in data:
        return []
    assert data.count(_RESPONSE) == data.count(_SUCCESS) == 1, "one answer at a time, all good"
    return [match[2].decode() for match in _UID.finditer(data)]
