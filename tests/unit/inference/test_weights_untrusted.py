"""Pickles and checkpoints of others: plain data comes in, nothing is run."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference.card import WeightsError
from inference.untrusted import read_checkpoint, read_pickle

DATA: dict[str, Any] = OrderedDict(
    array=np.array([1.5, 2.0]),
    scalar=np.float64(3.25),
    flag=np.bool_(True),
    fortran=np.asfortranarray(np.arange(6).reshape(2, 3)),
    big_endian=np.array([1, 2], ">i4"),
    texts=np.array(["ab", "c"]),
    objects=np.array([1, "a", None], object),
    nested=[{0: OrderedDict(mean=np.float32(0.5))}, (1, {2, 3}), b"abc"],
)
PLAIN = {
    "array": [1.5, 2.0],
    "scalar": 3.25,
    "flag": True,
    "fortran": [[0, 1, 2], [3, 4, 5]],
    "big_endian": [1, 2],
    "texts": ["ab", "c"],
    "objects": [1, "a", None],
    "nested": [{0: {"mean": 0.5}}, (1, {2, 3}), b"abc"],
}


class Evil:
    """Runs something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_plain_data_of_every_protocol_and_numpy(
    tmp_path: Path, protocol: int, module: bytes
) -> None:
    pickled = pickle.dumps(DATA, protocol=protocol)
    name = b"numpy._core.multiarray"
    if protocol == 4:  # names stand with their length before them
        pickled = pickled.replace(
            b"\x8c" + bytes([len(name)]) + name, b"\x8c" + bytes([len(module)]) + module
        )
        pickled = pickled[:2] + pickled[11:]  # the frame's length would be another
    else:
        pickled = pickled.replace(b"c" + name, b"c" + module)
    found = read_pickle(write(tmp_path / "plans.pkl", pickled))
    assert found == PLAIN
    assert type(found["scalar"]) is float


@pytest.mark.parametrize(
    ("evil", "named"),
    [
        (Evil(os.system, "touch {}"), "posix.system"),
        (Evil(eval, "open('{}', 'w')"), "builtins.eval"),
        (Evil(open, "{}", "w"), "open"),
        (Evil(getattr, {}, "__class__"), "builtins.getattr"),
        (Evil(np.load, "{}"), "numpy.load"),
        (Evil(np.fromfile, "{}"), "fromfile"),
        (Evil(pickle.loads, b"N."), "_pickle.loads"),
        (torch.zeros(1), "torch"),
        (Path("x"), "pathlib"),
    ],
)
def test_a_pickle_that_names_anything_else_is_refused(
    tmp_path: Path, evil: Any, named: str
) -> None:
    mark = tmp_path / "mark"
    if isinstance(evil, Evil):
        function, arguments = evil.call
        filled = [a.format(mark) if isinstance(a, str) else a for a in arguments]
        evil = Evil(function, *filled)
    path = write(tmp_path / "plans.pkl", pickle.dumps({"plans": [evil]}))
    with pytest.raises(WeightsError, match=named) as caught:
        read_pickle(path)
    assert "refused: it names" in str(caught.value)
    assert not mark.exists()


def _call(module: str, name: str, *arguments: bytes, then: bytes = b"") -> bytes:
    """A pickle of `{1: module.name(*arguments)}`, written by hand."""
    called = b"".join(arguments)
    return b"\x80\x02}K\x01c%s\n%s\n(%st%s" % (module.encode(), name.encode(), called, b"R") + (
        then + b"s."
    )


@pytest.mark.parametrize(
    "pickled",
    [
        pytest.param(_call("numpy", "ndarray", b"J\xff\xff\xff\x7f"), id="a huge array"),
        pytest.param(_call("numpy", "dtype", b"X\x05\x00\x00\x00i4,i4"), id="fields"),
        pytest.param(
            _call(
                "numpy", "dtype", b"X\x02\x00\x00\x00O8", then=b"(K\x03U\x01|NNNK\x08K\x01K\x00tb"
            ),
            id="an object dtype without its flags",
        ),
        pytest.param(
            _call("numpy.core.multiarray", "scalar", b"X\x02\x00\x00\x00O8", b"K\x01"),
            id="a scalar of an object",
        ),
        pytest.param(
            _call("_codecs", "encode", b"X\x01\x00\x00\x00a", b"X\x03\x00\x00\x00hex"), id="hex"
        ),
        pytest.param(b"\x80\x02c_codecs\nencode\n}X\x01\x00\x00\x00aK\x01sb.", id="state"),
        pytest.param(b"\x80\x02}K\x01Pelsewhere\ns.", id="persistent"),
        pytest.param(b"\x80\x02}K\x01\x82\x01s.", id="extension"),
        pytest.param(pickle.dumps([1, 2]), id="a list"),
        pytest.param(pickle.dumps(DATA)[:-20], id="cut"),
        pytest.param(b"", id="empty"),
        pytest.param(b"not a pickle", id="text"),
    ],
)
def test_a_pickle_with_tricks_is_refused(tmp_path: Path, pickled: bytes) -> None:
    with pytest.raises(WeightsError, match=r"plans\.pkl"):
        read_pickle(write(tmp_path / "plans.pkl", pickled))


def test_repetition_does_not_blow_up(tmp_path: Path) -> None:
    data: Any = []
    for _ in range(200):
        data = [data, data]
    found = read_pickle(write(tmp_path / "plans.pkl", pickle.dumps({"x": data})))
    assert len(found["x"]) == 2


def test_a_checkpoint_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "model.pth"
    torch.save({"state_dict": Evil(os.system, f"touch {mark}")}, path)
    with pytest.raises(WeightsError, match=r"posix\.system"):
        read_checkpoint(path)
    assert not mark.exists()
    torch.save([1], path)
    with pytest.raises(WeightsError, match="expected a dictionary, found list"):
        read_checkpoint(path)
    with pytest.raises(WeightsError, match=r"no\.pth"):
        read_checkpoint(tmp_path / "no.pth")
