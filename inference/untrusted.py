"""Checkpoints and pickles of others, opened so that nothing in them is run.

A pickle is a program. torch's own reader takes tensors and numbers only; for nnU-Net v1's plans the
unpickler here knows arrays, numbers and containers, and refuses every other name it meets.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.card import WeightsError

MAX_PICKLE_BYTES = 256 * 2**20
MAX_CHECKPOINT_BYTES = 8 * 2**30

# nnU-Net logs NumPy scalars into its checkpoints, under the module name of the NumPy of the day.
_MAKE_SCALAR = np.float64(0).__reduce__()[0]
_KINDS = ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
_NUMPY_SCALARS: list[Any] = [
    (_MAKE_SCALAR, "numpy.core.multiarray.scalar"),
    (_MAKE_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(kind)) for kind in _KINDS},
]


def read_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Return the dictionary in a file of torch.save; its tensors are on the CPU.

    Raises:
        WeightsError: it holds more than tensors, numbers and containers, or cannot be read.
    """
    try:
        if path.stat().st_size > MAX_CHECKPOINT_BYTES:
            raise WeightsError(f"{path}: more than {MAX_CHECKPOINT_BYTES} bytes")
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path}: not a checkpoint of tensors and numbers: {error}") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: expected a dictionary, found {type(data).__name__}")
    return data


def read_pickle(path: Path) -> dict[Any, Any]:
    """Return the dictionary in a pickle of plain data and NumPy arrays.

    Arrays come back as (nested) lists, NumPy's scalars as Python's, all mappings as dictionaries.

    Raises:
        WeightsError: it names anything else, or cannot be read.
    """
    try:
        if path.stat().st_size > MAX_PICKLE_BYTES:
            raise WeightsError(f"{path}: more than {MAX_PICKLE_BYTES} bytes")
        data = _plain(_PlainUnpickler(io.BytesIO(path.read_bytes())).load(), {})
    except _ForeignNameError as error:
        raise WeightsError(
            f"{path}: refused: it names {error}; expected numbers, texts, containers and NumPy "
            "arrays only"
        ) from None
    except WeightsError:
        raise
    except Exception as error:  # a hostile pickle can make any opcode fail
        raise WeightsError(f"{path}: not a pickle of plain data: {error}") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: expected a dictionary, found {type(data).__name__}")
    return data


class _ForeignNameError(pickle.UnpicklingError):
    """A pickle names something that is not on the list."""


# What stands for NumPy while a pickle is read. Real dtypes and arrays take any state that a pickle
# gives them, also one with which they read foreign memory; these check it.


class _Dtype:
    __slots__ = ("code",)

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[|<>=]?([biufcSUO]\d{0,6}|\?)", code):
            raise pickle.UnpicklingError(f"a dtype of {code!r}")
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Take the byte order; nothing else of NumPy's state counts for numbers and texts."""
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise pickle.UnpicklingError("a dtype with fields")
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a dtype with another byte order")
        self.code = state[1] + self.code.lstrip("|<>=")

    @property
    def is_object(self) -> bool:
        return "O" in self.code


class _Array:
    __slots__ = ("value",)

    def __init__(self, *_: object) -> None:
        self.value: object = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array without a dtype")
        if dtype.is_object:
            if not isinstance(data, list) or shape != (len(data),):
                raise pickle.UnpicklingError("an array of objects with several axes")
            self.value = data
        else:
            flat = np.frombuffer(data, np.dtype(dtype.code))
            self.value = flat.reshape(shape, order="F" if fortran else "C").tolist()


def _scalar(dtype: object, data: object = b"") -> object:
    if not isinstance(dtype, _Dtype) or dtype.is_object or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a scalar that is no number or text")
    (value,) = np.frombuffer(data, np.dtype(dtype.code)).tolist()
    return value


def _latin1(text: object, encoding: object) -> object:
    """Stand in for `_codecs.encode`, with which old protocols write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("an encoding other than latin1")
    return text.encode("latin1")


class _Made:
    """A function that a pickle may call. It takes no attributes: BUILD cannot change it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError(f"a function with a state: {state!r:.80}")


_ALLOWED: Mapping[tuple[str, str], object] = {
    **{
        (f"{package}.multiarray", name): _Made(function)
        for package in ("numpy.core", "numpy._core")
        for name, function in (("_reconstruct", _Array), ("scalar", _scalar))
    },
    ("numpy", "ndarray"): "ndarray",  # the argument of _reconstruct, which needs none
    ("numpy", "dtype"): _Made(_Dtype),
    ("collections", "OrderedDict"): _Made(OrderedDict),
    ("_codecs", "encode"): _Made(_latin1),
    **{
        (module, kind.__name__): _Made(kind)
        for module in ("builtins", "__builtin__")
        for kind in (complex, frozenset, set)
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle may name."""
        try:
            return _ALLOWED[(module, name)]
        except KeyError:
            raise _ForeignNameError(f"{module}.{name}") from None


def _plain(data: Any, done: dict[int, Any]) -> Any:
    """Return `data` with lists for arrays. Each object once: it may refer to itself many times."""
    if isinstance(data, (_Dtype, _Made)):
        raise pickle.UnpicklingError("a dtype or a function as a value")
    if not isinstance(data, (dict, list, tuple, set, frozenset, _Array)):
        return data
    if id(data) not in done:
        done[id(data)] = None  # of a cycle: plans have none
        if isinstance(data, dict):
            made: Any = {_plain(key, done): _plain(value, done) for key, value in data.items()}
        elif isinstance(data, _Array):
            made = _plain(data.value, done)
        else:
            made = type(data)(_plain(value, done) for value in data)
        done[id(data)] = made
    return done[id(data)]
