"""Choose planes of a stack along z and t, and name them as channels."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.load.pixels import Pixels, brightest, flattened
from cellstamp.source.load.stacks import Stack

# Axes that can be channels, in tifffile's letters: channel, image of a series, unknown, sample of a pixel.
_CHANNEL_AXES = "ciqs"
_UNKNOWN_AXES = "iq"
"""Axes of unknown meaning: z or t if the user chooses z or t."""
_ALLOWED = {"z": "an index, a list of them, or 'max' for the maximum projection", "t": "an index"}


@dataclass(frozen=True)
class PlaneChoice:
    """Planes of a stack to read.

    Attributes
    ----------
    z
        An index, a list of them (each plane becomes a channel), or "max" (the maximum projection).
    t
        An index.
    single
        Whether the result must be one plane, as for a mask.
    """

    z: int | tuple[int, ...] | Literal["max"] | None = None
    t: int | None = None
    single: bool = False

    @property
    def given(self) -> bool:
        """Return whether the user chose z or t."""
        return self.z is not None or self.t is not None


def mask_choice(z: Any = None, t: Any = None) -> PlaneChoice:
    """Check the arguments `z` and `t` for a mask, which is one plane.

    Raises
    ------
    InputError
        If one of them is not an index.
    """
    if isinstance(z, str | Sequence | np.ndarray):
        raise InputError(f"z = {z!r}: a mask is one plane, so z must be an index")
    return replace(plane_choice(z, t), single=True)


def plane_choice(z: Any = None, t: Any = None) -> PlaneChoice:
    """Check the arguments `z` and `t` of a loader.

    Raises
    ------
    InputError
        If one of them has a wrong type.
    """
    if isinstance(z, str) and z != "max":
        raise InputError(f"z = {z!r}: must be {_ALLOWED['z']}")
    if isinstance(z, Sequence | np.ndarray) and not isinstance(z, str):
        if len(z) == 0:
            raise InputError("z = []: must name one plane or more")
        return PlaneChoice(tuple(_index("z", part) for part in z), _index("t", t))
    return PlaneChoice("max" if z == "max" else _index("z", z), _index("t", t))


def _index(name: str, value: Any) -> Any:
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} = {value!r}: must be {_ALLOWED[name]}") from error


def chosen(stack: Stack, choice: PlaneChoice, where: str, *, first: int = 0) -> Pixels:
    """Return the chosen planes of a stack.

    Parameters
    ----------
    stack
        The image.
    choice
        Planes along z and t.
    where
        Its name in messages.
    first
        Number of its first channel among the channels of all files, to name unnamed channels.

    Returns
    -------
    Pixels
        (y, x), or (c, y, x) for several channels. With a list of z, the planes of the first channel come first.

    Raises
    ------
    InputError
        If a choice is missing for an axis, or is outside of its axis.
    """
    stack = _without_single(_with_known_axes(stack, choice))
    _check_choice(stack, choice, where)
    if "t" in stack.axes:
        stack = _without_single(stack.along(stack.axes.index("t"), [choice.t or 0]))
    if "z" not in stack.axes:
        _check_present(stack, where)
        return _channels(stack, first)
    return _along_z(stack, choice.z, where, first)


def _along_z(stack: Stack, z: Any, where: str, first: int) -> Pixels:
    if z == "max":
        _check_present(stack, where)
        return _projected(stack, first)
    listed = list(z) if isinstance(z, tuple) else [z]
    taken = stack.along(stack.axes.index("z"), listed)
    _check_present(taken, where)
    if not isinstance(z, tuple):
        return _channels(_without_single(taken), first)
    return _planes_as_channels(taken, None if _names_each_plane(stack) else listed, first)


def _with_known_axes(stack: Stack, choice: PlaneChoice) -> Stack:
    """Name an axis of unknown meaning z or t if the user chose z or t."""
    for axis, wanted in (("z", choice.z), ("t", choice.t)):
        unknown = [a for a, n in zip(stack.axes, stack.pixels.shape, strict=True) if a in _UNKNOWN_AXES and n > 1]
        if wanted is not None and axis not in stack.axes and len(unknown) == 1:
            stack = replace(stack, axes=stack.axes.replace(unknown[0], axis))
    return stack


def _without_single(stack: Stack) -> Stack:
    sizes = zip(stack.axes, stack.pixels.shape, strict=True)
    return stack.rearranged("".join(axis for axis, size in sizes if axis in "yx" or size != 1))


def _check_choice(stack: Stack, choice: PlaneChoice, where: str) -> None:
    lengths = dict(zip(stack.axes, stack.pixels.shape, strict=True))
    missing = [axis for axis in "zt" if axis in lengths and getattr(choice, axis) is None]
    others = [axis for axis in stack.axes if axis not in "cztyx"]
    channels = [axis for axis in stack.axes if axis in _CHANNEL_AXES]
    if not {"y", "x"} <= set(lengths) or any(axis not in _CHANNEL_AXES for axis in others) or len(channels) > 1:
        raise InputError(
            f"{where}: its axes are {stack.sizes}; they must be y and x, at most one of channels or colours, and z and "
            "t. Save each image as its own file, or load one as an array (load_input_from_array)"
        )
    if missing:
        raise InputError(
            f"{where}: its axes are {stack.sizes}. Choose the {'plane' if choice.single else 'planes'}: "
            f"{'; '.join(_ways(lengths, missing, single=choice.single))}"
        )
    for axis, index in _indices(choice):
        if not 0 <= index < lengths.get(axis, 1):
            has = f"0 to {lengths[axis] - 1}" if axis in lengths else f"it has one plane of {axis}"
            raise InputError(f"{where}: {axis} = {index}, but its axes are {stack.sizes}: {has}")


def _ways(lengths: dict[str, int], missing: Sequence[str], *, single: bool) -> Iterator[str]:
    if "z" in missing:
        several = "" if single else ", a list of them, or z='max' for the maximum projection"
        yield f"z=0 to z={lengths['z'] - 1}{several}"
    if "t" in missing:
        yield f"t=0 to t={lengths['t'] - 1}"


def _indices(choice: PlaneChoice) -> Iterator[tuple[str, int]]:
    if choice.z is not None and choice.z != "max":
        yield from (("z", index) for index in (choice.z if isinstance(choice.z, tuple) else (choice.z,)))
    if choice.t is not None:
        yield "t", choice.t


def _check_present(stack: Stack, where: str) -> None:
    if stack.present is None or stack.present.all():
        return
    there = int(np.count_nonzero(stack.present))
    raise InputError(
        f"{where}: {there} of the {stack.present.size} planes of {stack.sizes} are in it. Choose z and t so that it "
        "has all channels; if it should have them, copy or export the file again"
    )


def _channels(stack: Stack, first: int) -> Pixels:
    """Return a stack without z as (y, x) or (c, y, x); unnamed channels get numbers if others have names."""
    channel = "".join(axis for axis in stack.axes if axis not in "yx")
    ordered = stack.rearranged(f"{channel}yx")
    if ordered.names is None:
        return ordered.pixels
    names = np.broadcast_to(ordered.names, (*ordered.pixels.shape[:-2], 1, 1)).ravel().tolist()
    filled = (name or f"channel_{number}" for number, name in enumerate(names, first))
    return replace(ordered.pixels, names=tuple(filled) if any(names) else ())


def _projected(stack: Stack, first: int) -> Pixels:
    axis = stack.axes.index("z")
    return _channels(
        Stack(
            brightest(stack.pixels, axis),
            stack.axes.replace("z", ""),
            None if stack.names is None else _common(stack.names, axis),
        ),
        first,
    )


def _common(names: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return the name that all planes of a channel share; "" if they differ."""
    first = names.take(0, axis)
    same = (names == np.expand_dims(first, axis)).all(axis)
    return np.where(same, first, "")


def _names_each_plane(stack: Stack) -> bool:
    """Return whether the names are of planes (ImageJ's labels), not of channels."""
    if stack.names is None or stack.names.shape[stack.axes.index("z")] == 1:
        return False
    return bool(stack.names.all()) and len(set(stack.names.ravel())) == stack.names.size


def _planes_as_channels(stack: Stack, numbers: Sequence[int] | None, first: int) -> Pixels:
    """Return each plane as a channel; its number is added to its name unless each plane has a name."""
    channel = "".join(axis for axis in stack.axes if axis not in "zyx")
    ordered = stack.rearranged(f"{channel}zyx")
    shape = ordered.pixels.shape[:-2] if channel else (1, ordered.pixels.shape[0])
    names = np.full(shape, "", object)
    if ordered.names is not None:
        names[...] = ordered.names.reshape(ordered.names.shape[:-2])
    pixels = flattened(ordered.pixels) if channel else ordered.pixels
    if numbers is None:
        return replace(pixels, names=tuple(names.ravel()))
    numbered = (f"{names[c, k] or f'channel_{first + c}'}_z{numbers[k]}" for c, k in np.ndindex(*shape))
    return replace(pixels, names=tuple(numbered))
