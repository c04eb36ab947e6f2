"""The page cache: files in it, files dropped from it, and how fast the disk reads them."""

import ctypes
import mmap
import os
import time
from pathlib import Path

PIECE = 4 * 2**20


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def read_all(files: list[Path]) -> float:
    """Read them one after the other; MB/s of what is on the disk."""
    room, total, began = bytearray(PIECE), 0, time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while read := file.readinto(room):
                total += read
    return total / 1e6 / (time.perf_counter() - began)


def drop(files: list[Path]) -> None:
    """Have none of them in the page cache. They must have been written to the disk before."""
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(files):
        raise SystemExit(f"{resident(files)} pages stay in the page cache: nothing cold to measure")


def resident(files: list[Path]) -> int:
    """How many of their pages are in the page cache."""
    libc, pages = ctypes.CDLL(None, use_errno=True), 0
    for path in files:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            mapped = mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE)  # writable, for ctypes
            first = ctypes.c_char.from_buffer(mapped)
            found = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
            if libc.mincore(ctypes.byref(first), ctypes.c_size_t(size), found):
                raise OSError(ctypes.get_errno(), "mincore")
            pages += sum(page & 1 for page in found)
            del first
            mapped.close()
    return pages
