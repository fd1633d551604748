"""Lossless JPEG decoded strictly, independent of the product: a stream with anything odd in it is refused.

ITU-T T.81, annex H: one component, Huffman codes, the first predictor (the pixel to the left) without point transform,
which is what GDCM writes. Slow, for the small images of the fuzzer.
"""

from __future__ import annotations

import struct

import numpy as np


def decoded(stream: bytes) -> np.ndarray:
    """The pixels (rows, columns) of a stream. Raises ValueError, KeyError or struct.error for one that isn't whole."""
    place, codes, shape, precision = 2, {}, (0, 0), 0
    _need(stream[:2] == b"\xff\xd8", "no start")
    while True:
        mark, length = struct.unpack_from(">HH", stream, place)
        body = stream[place + 4 : place + 2 + length]
        place += 2 + length
        if mark == 0xFFC3:
            precision, rows, columns, components = struct.unpack_from(">BHHB", body)
            _need(components == 1 and len(body) == 9, "several components")
            shape = (rows, columns)
        elif mark == 0xFFC4:
            _need(body[0] == 0, "another table")
            codes = _codes(body)
        elif mark == 0xFFDA:
            _need(len(body) == 6 and body[3] == 1 and body[5] == 0, "another predictor")
            break
        else:
            _need(0xFFE0 <= mark <= 0xFFEF or mark == 0xFFFE, f"marker {mark:x}")
    end = stream.rindex(b"\xff\xd9")
    _need(not stream[end + 2 :].strip(b"\0"), "something after the end")
    bits = _Bits(stream[place:end])
    differences = np.array([_difference(bits, codes) for _ in range(shape[0] * shape[1])]).reshape(shape)
    bits.finish()
    # The first pixel is predicted as the middle of the range, the first one of other rows by the pixel above.
    differences[0, 0] += 1 << (precision - 1)
    differences[:, 0] = np.cumsum(differences[:, 0])
    return np.asarray(np.cumsum(differences, axis=1) & 0xFFFF, np.uint16)


def _need(condition: object, what: str) -> None:
    if not condition:
        raise ValueError(what)


def _codes(body: bytes) -> dict[tuple[int, int], int]:
    """The number of a difference's bits by (length, code), from a table."""
    counts, values = body[1:17], iter(body[17:])
    _need(len(body) == 17 + sum(counts), "a table of another length")
    found, code = {}, 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            found[length, code] = next(values)
            code += 1
        _need(code <= 1 << length, "too many codes")
        code <<= 1
    return found


class _Bits:
    def __init__(self, content: bytes) -> None:
        plain = content.replace(b"\xff\x00", b"\xff")
        _need(content.count(b"\xff") == content.count(b"\xff\x00"), "a marker in the pixels")
        self._bits = np.unpackbits(np.frombuffer(plain, np.uint8)).tolist()
        self._place = 0

    def take(self, count: int) -> int:
        """The next bits as a number."""
        _need(self._place + count <= len(self._bits), "too few bits")
        value = 0
        for bit in self._bits[self._place : self._place + count]:
            value = value << 1 | bit
        self._place += count
        return value

    def finish(self) -> None:
        """Refuses whole bytes that are left."""
        _need(len(self._bits) - self._place < 8, "too many bits")


def _difference(bits: _Bits, codes: dict[tuple[int, int], int]) -> int:
    code, size = 0, -1
    for length in range(1, 17):
        code = code << 1 | bits.take(1)
        if (length, code) in codes:
            size = codes[length, code]
            break
    _need(0 <= size <= 16, "no such code")
    if size == 16:
        return 32768
    value = bits.take(size)
    return value if size == 0 or value >> (size - 1) else value - (1 << size) + 1
