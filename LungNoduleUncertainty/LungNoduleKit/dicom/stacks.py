"""One stack out of a series' slices: in order, evenly spaced, alike in geometry; anything else is refused, saying why.

A constant step in plane from slice to slice is a tilted gantry, and kept. Several stacks or phases in one series are
told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, printable, shortened
from ..geometry import Grid, as_triple
from ..grid_checks import LARGEST_TILT, POSSIBLE_SPACING_MM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import SimpleITK as sitk

    from .headers import Frame

_UNEVEN = 0.02  # gaps that differ by more than this fraction of their median are worth a warning
_BROKEN = 0.25  # ... and by more than this mean missing or displaced slices
_APART = 1.5  # slices whose distance is more than so many times what they stand for may be every second one
_SAME_PLACE_MM = 1e-3  # slices nearer than this along their normal share their position
_SAME_ANGLE = 0.1  # degrees: rounding of cosines to three decimals is a third of this; across 250 mm it is 0.4 mm
_SAME_PLANE = 5.0  # degrees: slices that differ by more are another plane, such as a localizer's, and left out
_SAME_SPACING = 1e-3  # share: across 512 pixels half a pixel
_SAME_LINE = 0.1  # pixels that a slice may lie off the line through the first and the last one
_SQUARE = 0.01  # how far the direction cosines may be from unit length and a right angle


@dataclass(frozen=True)
class Stack:
    """Slices along their normal, and the grid (LPS) that they fill."""

    frames: list[Frame]
    grid: Grid

    def image(self, voxels: np.ndarray) -> sitk.Image:
        """The volume of voxels (slices, rows, columns)."""
        return self.grid.image(voxels)


def stack_of(frames: Sequence[Frame], name: str, uid: str, number: int | None, warn: Callable[[str], object]) -> Stack:
    """The stack of a series' slices, of several the longest or number `number` (from 1). Raises `ImageError`.

    `name` is what messages call the series, `uid` how it is named to the reader.
    """
    if len(frames) == 1:
        return Stack(list(frames), _grid(list(frames), name))
    placed = [frame for frame in frames if frame.position is not None and frame.orientation is not None]
    if len(placed) < 2:
        raise ImageError(f"{name}: its slices have no position or orientation")
    for frame in placed:
        _check_orientation(frame, name)
    parts = [part for plane in _planes(_without_copies(placed, name, warn)) for part in _told_apart(plane)]
    chosen = _choose_part(parts, name, uid, number, warn)
    lost = [frame for frame in frames if frame.position is None or frame.orientation is None]
    _tell_left_out(lost, "without position or orientation", name, warn)
    used = {(frame.path, frame.number) for part in parts if len(part.frames) > 1 for frame in part.frames}
    single = [frame for part in parts for frame in part.frames if (frame.path, frame.number) not in used]
    _tell_left_out(single, "of another size or orientation", name, warn)
    ordered = _ordered(chosen.frames, name, warn)
    return Stack(ordered, _grid(ordered, name))


def _tell_left_out(frames: list[Frame], reason: str, name: str, warn: Callable[[str], object]) -> None:
    if frames:
        images = "1 image" if len(frames) == 1 else f"{len(frames)} images"
        named = ", ".join(dict.fromkeys(printable(frame.path) for frame in frames[:3]))
        warn(f"{name}: {images} {reason} left out: {named}{' and others' if len(frames) > 3 else ''}")


def _without_copies(frames: list[Frame], name: str, warn: Callable[[str], object]) -> list[Frame]:
    """Each slice once where files are there twice: same SOPInstanceUID, same header, same bytes from the pixels on."""
    kept: dict[tuple[object, ...], Frame] = {}
    copies = []
    for frame in frames:
        key = (frame.uid, frame.number, frame.position)
        first = kept.setdefault(key, frame)
        if first is not frame and frame.uid and _same_content(first, frame):
            copies.append(frame)
        elif first is not frame:
            again = (*key, frame.path)
            kept[again] = frame
    if copies:
        count = "1 slice is" if len(copies) == 1 else f"{len(copies)} slices are"
        warn(f"{name}: {count} there twice, in files with the same content; read once")
    return list(kept.values())


def _same_content(one: Frame, other: Frame) -> bool:
    if (one.slope, one.intercept, one.spacing) != (other.slope, other.intercept, other.spacing):
        return False
    tails = []
    for frame in (one, other):
        with open(frame.path, "rb") as stream:
            stream.seek(frame.pixels.offset or 0)
            tails.append(stream.read())
    return tails[0] == tails[1]


@dataclass(frozen=True)
class _Part:
    """Slices that may form a stack, and what tells them from the series' others."""

    frames: list[Frame]
    label: str = ""


def _planes(frames: list[Frame]) -> list[list[Frame]]:
    """Slices by size and plane: those that lie within `_SAME_PLANE` of the first of their kind."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            same_size = (frame.pixels.rows, frame.pixels.columns) == (group[0].pixels.rows, group[0].pixels.columns)
            if same_size and _angle(frame, group[0]) <= _SAME_PLANE:
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _told_apart(frames: list[Frame]) -> list[_Part]:
    """Slices by stack and, where several lie at one place, by whatever tells these apart (phases, reconstructions)."""
    pixels = frames[0].pixels
    label = f"{pixels.columns} x {pixels.rows} pixels"
    stacks: dict[str, list[Frame]] = {}
    for frame in frames:
        stacks.setdefault(frame.stack, []).append(frame)
    parts = []
    for stack, members in stacks.items():
        told = f"StackID {printable(stack)}" if len(stacks) > 1 else label
        most = _most_at_one_place(members)
        parts += [_Part(members, told)] if most == 1 else _phases(members, most, told)
    return parts


def _most_at_one_place(frames: list[Frame]) -> int:
    """How many slices share their height along the normal, at most."""
    heights = np.sort(_heights(frames))
    places = np.concatenate([[0], np.cumsum(np.diff(heights) > _SAME_PLACE_MM)])
    return int(np.bincount(places).max())


def _phases(frames: list[Frame], most: int, label: str) -> list[_Part]:
    for key in frames[0].telling:
        values = [frame.telling[key] for frame in frames]
        if most <= len(set(values)) <= 2 * most:
            groups = {value: [f for f, v in zip(frames, values, strict=True) if v == value] for value in values}
            if all(_most_at_one_place(group) == 1 for group in groups.values()):
                return [
                    _Part(group, f"{key} {shortened(printable(value)) or 'missing'}") for value, group in groups.items()
                ]
    return [_Part(frames, label)]


def _choose_part(parts: list[_Part], name: str, uid: str, number: int | None, warn: Callable[[str], object]) -> _Part:
    several = [part for part in parts if len(part.frames) > 1]
    if not several:
        raise ImageError(f"{name}: it has no two slices of the same size and orientation")
    listed = "; ".join(
        f"{uid}#{count} ({len(part.frames)} slices, {part.label})" for count, part in enumerate(several, 1)
    )
    if number is not None:
        if number > len(several):
            raise ImageError(f"{name}: it has no stack {number}, only {listed}")
        return several[number - 1]
    longest = sorted(several, key=lambda part: -len(part.frames))
    if len(longest) > 1:
        if len(longest[0].frames) == len(longest[1].frames):
            raise ImageError(f"{name}: it holds several stacks or phases, name one of them as series: {listed}")
        warn(f"{name}: it holds several stacks or phases, the longest is used: {listed}")
    return longest[0]


def _ordered(frames: list[Frame], name: str, warn: Callable[[str], object]) -> list[Frame]:
    """The slices along their normal, after a check that they form an evenly spaced stack of like images."""
    _check_alike(frames, name)
    heights = _heights(frames)
    order = np.argsort(heights, kind="stable")
    frames, heights = [frames[k] for k in order], heights[order]
    _check_gaps(heights, name, warn)
    _check_line(frames, heights, name)
    _tell_gaps(frames, heights, name, warn)
    return frames


def _heights(frames: list[Frame]) -> np.ndarray:
    """(slices,) mm along the first slice's normal."""
    row, column = _directions(frames[0])
    return np.array([frame.position for frame in frames]) @ np.cross(row, column)


def _directions(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    row, column = np.reshape(np.asarray(frame.orientation, float), (2, 3))
    return row, column


def _angle(one: Frame, other: Frame) -> float:
    """Degrees between the rows or the columns of two slices, whichever is more."""
    if one.orientation == other.orientation:
        return 0.0
    pairs = zip(_directions(one), _directions(other), strict=True)
    return max(float(np.degrees(2 * np.arcsin(min(1.0, np.linalg.norm(_unit(a) - _unit(b)) / 2)))) for a, b in pairs)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector * (1 / np.sqrt(vector @ vector))


def _check_orientation(frame: Frame, name: str) -> None:
    row, column = _directions(frame)
    lengths = np.linalg.norm([row, column], axis=1)
    if np.abs(lengths - 1).max() > _SQUARE or abs(row @ column) > _SQUARE:
        told = ", ".join(f"{v:g}" for v in frame.orientation or ())
        raise ImageError(f"{name}: rows and columns aren't at right angles ({told}) in {printable(frame.path)}")


def _check_alike(frames: list[Frame], name: str) -> None:
    """Refuses slices that differ in what a volume has once; the message says what differs."""
    for frame in frames:
        _check_spacing(frame, name)
    first = frames[0].spacing
    assert first is not None  # checked above
    other = next((f for f in frames if not np.allclose(f.spacing or 0, first, rtol=_SAME_SPACING, atol=0)), None)
    if other is not None:
        sizes = " and ".join(" x ".join(f"{mm:g}" for mm in f.spacing or ()) for f in (frames[0], other))
        raise ImageError(f"{name}: its slices have pixels of different size: {sizes} mm")
    angles = [_angle(frame, frames[0]) for frame in frames]
    if max(angles) > _SAME_ANGLE:
        raise ImageError(f"{name}: its slices differ in orientation, by up to {max(angles):.2f}°")
    references = {frame.reference for frame in frames if frame.reference}
    if len(references) > 1:
        told = ", ".join(shortened(printable(reference)) for reference in sorted(references)[:4])
        raise ImageError(f"{name}: its slices have {len(references)} frames of reference: {told}")


def _check_spacing(frame: Frame, name: str) -> None:
    if frame.spacing is None:
        raise ImageError(f"{name}: it has no pixel size (PixelSpacing) in {printable(frame.path)}")
    if not all(POSSIBLE_SPACING_MM[0] <= mm <= POSSIBLE_SPACING_MM[1] for mm in frame.spacing):
        told = " x ".join(f"{mm:g}" for mm in frame.spacing)
        raise ImageError(f"{name}: a pixel size of {told} mm isn't one of a CT, in {printable(frame.path)}")


def _check_gaps(heights: np.ndarray, name: str, warn: Callable[[str], object]) -> None:
    """Refuses slices at ascending `heights` (mm) of which some are missing or doubled, and warns of uneven ones."""
    gaps = np.diff(heights)
    doubled = int((gaps < _SAME_PLACE_MM).sum())
    if doubled:
        raise ImageError(f"{name}: {doubled} slices share their position with another one")
    usual = float(np.median(gaps))
    off = np.abs(gaps / usual - 1)
    if off.max() > _BROKEN:
        worst = int(off.argmax())
        where = f"between {heights[worst]:.2f} and {heights[worst + 1]:.2f} mm the gap is {gaps[worst]:.2f} mm"
        raise ImageError(f"{name}: slices are missing or irregular: {where}, elsewhere {usual:.2f} mm")
    if off.max() > _UNEVEN:
        warn(f"{name}: its slices are unevenly spaced ({gaps.min():.3f} to {gaps.max():.3f} mm)")


def _tell_gaps(frames: list[Frame], heights: np.ndarray, name: str, warn: Callable[[str], object]) -> None:
    """Warns of slices that lie farther apart than they are thick: others between them may be missing."""
    stated = [frame.thickness for frame in frames if frame.thickness is not None]
    if not stated:
        return
    usual, thick = float(np.median(np.diff(heights))), float(np.median(stated))
    if usual > _APART * thick:
        warn(
            f"{name}: its slices lie {usual:.2f} mm apart, but are said to be {thick:.2f} mm thick or apart; others "
            "may be missing between them"
        )


def _check_line(frames: list[Frame], heights: np.ndarray, name: str) -> None:
    """Refuses slices that are shifted in plane against each other, unless by a constant step (a tilted gantry)."""
    positions = np.array([frame.position for frame in frames])
    share = (heights - heights[0]) / (heights[-1] - heights[0])
    off = np.linalg.norm(positions - positions[0] - share[:, None] * (positions[-1] - positions[0]), axis=1)
    along = positions[-1] - positions[0]
    height = abs(float(heights[-1] - heights[0]))
    tilt = float(np.degrees(np.arccos(min(1.0, height / float(np.linalg.norm(along))))))
    pixel = min(frames[0].spacing or (1.0,))
    if off.max() > _SAME_LINE * pixel:
        _, steps = _steps(positions, heights)
        raise ImageError(f"{name}: its slices are shifted in plane against each other, by up to {steps:.2f} mm")
    if tilt > LARGEST_TILT:
        raise ImageError(f"{name}: its slices are stacked at {tilt:.0f}° to their normal; no gantry tilts so far")


def _steps(positions: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, float]:
    """The usual in-plane step per mm of height, and how far the slices leave a line of such steps, in mm."""
    steps = np.diff(positions, axis=0) / np.diff(heights)[:, None]
    usual = np.median(steps, axis=0)
    off = positions - positions[0] - (heights - heights[0])[:, None] * usual
    return usual, float(np.linalg.norm(off, axis=1).max())


def _grid(frames: list[Frame], name: str) -> Grid:
    """Where the slices lie, by the same arithmetic as ITK: axes at right angles, the third from first to last slice."""
    first, last = frames[0], frames[-1]
    _check_spacing(first, name)
    assert first.spacing is not None
    size = (first.pixels.columns, first.pixels.rows, len(frames))
    row, column = (np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))
    if first.orientation is not None:
        _check_orientation(first, name)
        row, column = _directions(first)
    normal = _unit(np.cross(row, column))
    row = _unit(np.cross(column, normal))
    column = np.cross(normal, row)
    origin, step, along = np.asarray(first.position or (0.0, 0.0, 0.0)), 1.0, normal
    if len(frames) > 1:
        between = np.asarray(last.position) - origin
        length = float(np.sqrt(between @ between))
        step, along = length / (len(frames) - 1), between / length
    direction = tuple(np.column_stack([row, column, along]).ravel().tolist())
    spacing = (first.spacing[1], first.spacing[0], step)
    return Grid(size, spacing, as_triple(origin), direction)
