"""Read a GGUF v3 file with NumPy: its metadata and its tensors, dequantised to float32.

Layout (little-endian; https://github.com/ggml-org/ggml/blob/master/docs/gguf.md):

    "GGUF"  version:u32  tensor_count:u64  entry_count:u64
    entry_count  x (key:string  kind:u32  value)
    tensor_count x (name:string  rank:u32  extents:u64[rank]  encoding:u32  offset:u64)
    padding up to `general.alignment`, then the tensors' blocks, offsets counted from here

Only the encodings that occur in the embedded model are decoded: F32, Q4_1 and Q8_0.
"""

import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_DEFAULT_ALIGNMENT_BYTES = 32


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies. `shape` is in NumPy's order (rows first), the reverse of ggml's."""

    shape: tuple[int, ...]
    encoding: int
    offset_bytes: int  # from the start of the file


@dataclass(frozen=True)
class Gguf:
    """An open GGUF file. The tensors stay on disk until `weights` asks for one."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    data: mmap.mmap

    def weights(self, name: str) -> Floats:
        """The tensor `name`, dequantised; the array has the tensor's shape."""
        tensor = self.tensors[name]
        encoding = _ENCODINGS.get(tensor.encoding)
        if encoding is None:
            raise ValueError(f"tensor {name!r} has ggml type {tensor.encoding}, which is not decoded here")
        block_count = prod(tensor.shape) // encoding.block_weights
        blocks = np.frombuffer(self.data, encoding.block, block_count, tensor.offset_bytes)
        return encoding.decode(blocks).reshape(tensor.shape)


def read_gguf(path: Path) -> Gguf:
    """Map `path` and read its header. Raises ValueError if it is not a GGUF v3 file."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header = _Cursor(data)
    magic, version = header.take(4), header.scalar("I")
    if magic != b"GGUF" or version != 3:
        raise ValueError(f"{path} is not a GGUF v3 file (it starts with {magic!r}, version {version})")
    tensor_count, entry_count = header.scalar("Q"), header.scalar("Q")
    metadata = {header.string(): header.value(header.scalar("I")) for _ in range(entry_count)}
    relative = [header.tensor() for _ in range(tensor_count)]
    alignment_bytes = metadata.get("general.alignment", _DEFAULT_ALIGNMENT_BYTES)
    start_bytes = -(-header.offset_bytes // alignment_bytes) * alignment_bytes
    tensors = {
        name: Tensor(tensor.shape, tensor.encoding, start_bytes + tensor.offset_bytes) for name, tensor in relative
    }
    return Gguf(metadata, tensors, data)


class _Cursor:
    """Reads the header's primitives one after another."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.offset_bytes = 0

    def take(self, size_bytes: int) -> bytes:
        taken = self.data[self.offset_bytes : self.offset_bytes + size_bytes]
        if len(taken) < size_bytes:
            raise ValueError(f"the GGUF file ends inside its header, at byte {len(self.data)}")
        self.offset_bytes += size_bytes
        return taken

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        return self.take(self.scalar("Q")).decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            item_kind, count = self.scalar("I"), self.scalar("Q")
            return [self.value(item_kind) for _ in range(count)]
        return self.scalar(_SCALARS[kind])

    def tensor(self) -> tuple[str, Tensor]:
        """One tensor's entry; its offset still counts from the start of the blocks."""
        name, rank = self.string(), self.scalar("I")
        extents = [self.scalar("Q") for _ in range(rank)]
        return name, Tensor(tuple(reversed(extents)), self.scalar("I"), self.scalar("Q"))


@dataclass(frozen=True)
class _Encoding:
    """How one ggml type stores weights: blocks of `block_weights`, each laid out as `block`."""

    block_weights: int
    block: np.dtype[Any]
    decode: Callable[[NDArray[Any]], Floats]  # (blocks,) -> (blocks, block_weights)


def _from_f32(blocks: NDArray[Any]) -> Floats:
    return blocks["weight"].astype(np.float32)


def _from_q4_1(blocks: NDArray[Any]) -> Floats:
    """weight = scale * quant + low; low nibbles hold a block's first 16 weights, high ones the rest."""
    nibbles = [blocks["quants"] & 0x0F, blocks["quants"] >> 4]
    quants: Floats = np.concatenate(nibbles, axis=1).astype(np.float32)  # (blocks, 32)
    return _column(blocks, "scale") * quants + _column(blocks, "low")


def _from_q8_0(blocks: NDArray[Any]) -> Floats:
    """weight = scale * quant."""
    quants: Floats = blocks["quants"].astype(np.float32)
    return _column(blocks, "scale") * quants


def _column(blocks: NDArray[Any], field: str) -> Floats:
    """A per-block float16 as float32, shape (blocks, 1)."""
    return blocks[field].astype(np.float32)[:, np.newaxis]


_ENCODINGS = {
    0: _Encoding(1, np.dtype([("weight", "<f4")]), _from_f32),
    3: _Encoding(32, np.dtype([("scale", "<f2"), ("low", "<f2"), ("quants", "u1", 16)]), _from_q4_1),
    8: _Encoding(32, np.dtype([("scale", "<f2"), ("quants", "i1", 32)]), _from_q8_0),
}
