"""Identify models and functions, so that an interrupted run resumes with the same one only.

A network is its classes, their source code, its plain attributes, and its weights. A function is its path, its source
code, and everything that it uses from outside: closures, defaults, and globals. So a function that calls a network is
identified with that network.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), slice, range)
_BY_TEXT = (torch.dtype, torch.device, torch.Size, torch.layout, np.dtype)
_SHOWN = 16


class UnknownIdentityError(Exception):
    """An object that cannot be compared with one of another run."""


def name_of(value: Any) -> str:
    """Return a name of a model or function for people, such as ``my_module:Network``."""
    if isinstance(value, partial):
        return name_of(value.func)
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


def identity_of(value: Any) -> str:
    """Return a name and a digest of a model or function.

    Raises
    ------
    UnknownIdentityError
        If it uses an object that cannot be compared with one of another run.
    """
    digest = _Digest(_package_of(value))
    digest.add(value)
    return f"{name_of(value)}, digest {digest.text}"


def _package_of(value: Any) -> str:
    value = value.func if isinstance(value, partial) else value
    module = getattr(value, "__module__", None) or type(value).__module__
    return str(module).partition(".")[0]


class _Digest:
    """Digest of an object and of all that it uses.

    Parameters
    ----------
    package
        Package of the user's code. Of functions in other packages, only the path and the source code count.
    """

    def __init__(self, package: str) -> None:
        self._hash, self._package = hashlib.sha256(), package
        self._seen: dict[int, Any] = {}

    @property
    def text(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()[:_SHOWN]

    def add(self, value: Any) -> None:
        """Add an object."""
        if isinstance(value, (*_PLAIN, *_BY_TEXT)):
            self._note(type(value).__name__, repr(value))
        elif id(value) in self._seen:
            self._note("again", str(list(self._seen).index(id(value))))
        else:
            self._seen[id(value)] = value  # kept alive, so that no other object gets its id
            self._add_new(value)

    def _add_new(self, value: Any) -> None:
        for kind, add in self._kinds():
            if isinstance(value, kind):
                add(value)
                return
        self._add_instance(value)

    def _kinds(self) -> Iterator[tuple[Any, Any]]:
        yield torch.nn.Module, self._add_network
        yield torch.Tensor, self._add_tensor
        yield np.ndarray | np.generic, self._add_array
        yield partial, lambda value: self._add_all("partial", (value.func, value.args, value.keywords))
        yield MethodType, lambda value: self._add_all("method", (value.__func__, value.__self__))
        yield FunctionType, self._add_function
        yield (type, BuiltinFunctionType, np.ufunc), self._add_named
        yield ModuleType, lambda value: self._note("module", value.__name__)
        yield (list, tuple), lambda value: self._add_all(type(value).__name__, value)
        yield (set, frozenset), lambda value: self._add_all("set", sorted(value, key=repr))
        yield Mapping, lambda value: self._add_all("mapping", [part for item in value.items() for part in item])

    def _note(self, *texts: str) -> None:
        for text in texts:
            self._hash.update(f"{len(text)}:{text}".encode(errors="surrogatepass"))

    def _add_all(self, kind: str, values: Any) -> None:
        self._note(kind, str(len(values)))
        for value in values:
            self.add(value)

    def _add_network(self, network: torch.nn.Module) -> None:
        # the text of a network has its layers and their settings
        self._note("network", repr(network))
        for name, module in network.named_modules():
            self._note(name, _path(type(module)), _source(type(module)))
            self._add_attributes(module)
        if isinstance(network, torch.jit.ScriptModule):
            self._note(str(getattr(network, "code", "")))
        # the state lacks buffers that are not saved, such as means of a normalisation
        for name, value in (*network.state_dict().items(), *network.named_buffers()):
            self._note(name)
            self.add(value)

    def _add_attributes(self, module: torch.nn.Module) -> None:
        """Add plain attributes, which weights and text lack. Others, such as loggers, are left out."""
        for name, value in sorted(vars(module).items()):
            if isinstance(value, _PLAIN) and name != "training":
                self._note(name, repr(value))

    def _add_tensor(self, tensor: torch.Tensor) -> None:
        try:
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:  # weights that do not exist yet
            raise UnknownIdentityError(f"a tensor of {type(tensor).__name__}: {error}") from error
        self._note("tensor", str(tensor.dtype), str(tuple(tensor.shape)))
        self._hash.update(content.data)

    def _add_array(self, array: Any) -> None:
        values = np.ascontiguousarray(array)
        if values.dtype.hasobject:
            raise UnknownIdentityError(f"an array of {values.dtype}")
        self._note("array", str(values.dtype), str(values.shape), hashlib.sha256(values.tobytes()).hexdigest())

    def _add_named(self, value: Any) -> None:
        """Add a class, or a compiled function."""
        if isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | type(None) | type):
            raise UnknownIdentityError(f"a method of {type(value.__self__).__name__}")
        self._note("named", _path(value), _source(value) if isinstance(value, type) else "")

    def _add_function(self, function: FunctionType) -> None:
        source = _source(function)
        if not source:
            raise UnknownIdentityError(f"{_path(function)} has no source code")
        self._note("function", _path(function), source)
        if _package_of(function) != self._package:
            return
        self._add_all("defaults", (function.__defaults__, function.__kwdefaults__))
        for cell in function.__closure__ or ():
            self.add(cell.cell_contents)
        for name in sorted(_global_names(function.__code__)):
            if name in function.__globals__:
                self._note(name)
                self.add(function.__globals__[name])

    def _add_instance(self, value: Any) -> None:
        """Add an object of a class written in Python, such as a chain of transforms."""
        source = _source(type(value))
        if not source or not hasattr(value, "__dict__"):  # what compiled objects hold cannot be seen
            raise UnknownIdentityError(f"an object of {type(value).__name__}")
        self._note("object", _path(type(value)), source)
        if callable(value) and isinstance(type(value).__call__, FunctionType):
            self.add(type(value).__call__)
        self._add_all("attributes", [part for item in sorted(vars(value).items()) for part in item])


def _path(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"


def _source(value: Any) -> str:
    """Return the source code of a function or class; nothing if it is unknown."""
    if isinstance(value, type) and value.__module__.partition(".")[0] in sys.stdlib_module_names:
        return ""
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        return ""


def _global_names(code: CodeType) -> set[str]:
    """Return the names of all globals that a function uses, also in functions inside it."""
    names = {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_global_names(part) for part in code.co_consts if isinstance(part, CodeType)))
