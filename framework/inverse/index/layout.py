"""The files of a look-up index: their names, their layout, and the manifest.

In the folder STORE.index/:

    index.json      the manifest, renamed into place whole: only files that it names count
    FIRST+N.table   N entries from number FIRST on: keys, sizes, counts of voxels cube by cube
    voxels          a record for each entry and threshold, see records.py

A table is written once; `voxels` only grows. So the last index survives whatever is killed, and an
open index stays usable while another process extends it. Everything has a checksum: those of
index.json and of a table's head are checked when they are opened, those of counts and records when
they are first used.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from framework.errors import DamagedError, StudyError, reason
from framework.files import absolute

# The arrays in a file, in order: names, types and shapes.
Layout = list[tuple[str, tuple[type[np.generic], tuple[int, ...]]]]

FORMAT = 1
MANIFEST, VOXELS, TABLE = "index.json", "voxels", ".table"


def index_folder(store: str) -> Path:
    """Return the folder of a store's index: beside a local store, else in the current directory."""
    path = absolute(store)
    return Path(f"{path.rstrip('/').rpartition('/')[2] if '://' in path else path}.index")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read index.json.

    Raises StudyError if there is none or it has another format, DamagedError if it is damaged.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text()
    except FileNotFoundError:
        store = str(folder).removesuffix(".index")
        raise StudyError(f"there is no index {folder}: run millstream index {store}") from None
    except OSError as error:
        raise damaged_index(path, reason(error)) from error
    except ValueError:
        raise damaged_index(path, "it is not text") from None
    try:
        manifest: dict[str, Any] = json.loads(text)
        found, right = manifest.pop("checksum"), manifest_checksum(manifest)
    except (ValueError, LookupError, AttributeError):
        raise damaged_index(path, "it is not what was written") from None
    if manifest.get("format") != FORMAT:
        raise StudyError(
            f"the index {folder} has format {manifest.get('format')}, but this version of "
            f"Millstream reads {FORMAT}: remove it and run millstream index again"
        )
    if found != right:
        raise damaged_index(path, "its checksum is wrong")
    return manifest


def manifest_checksum(manifest: Mapping[str, Any]) -> int:
    """Return the checksum of a manifest that has none yet."""
    return int(google_crc32c.value(json.dumps(manifest, sort_keys=True).encode()))


def table_arrays(thresholds: int, entries: int, cubes: int) -> Layout:
    """Return the arrays in a table's file, in order, each beginning at a multiple of 8 bytes.

    All but `counts` is the head; `row_checksums` are those of the rows of `counts`.
    """
    return [
        ("keys", (np.int64, (entries, 2))),
        ("ends", (np.int64, (1 + thresholds, entries))),
        ("checksums", (np.uint64, (thresholds, entries))),
        ("sizes", (np.int32, (thresholds, entries))),
        ("cubes", (np.int64, (cubes,))),
        ("row_checksums", (np.uint32, (thresholds, cubes))),
        ("counts", (np.uint16, (thresholds, cubes, entries))),
    ]


def head_bytes(layout: Layout) -> int:
    """Return the size of a table's head."""
    return sum(
        padded(np.dtype(dtype).itemsize * math.prod(shape)) for _, (dtype, shape) in layout[:-1]
    )


def damaged_index(path: Path, what: str) -> DamagedError:
    """Make the error to raise when an index, or one of its files, is damaged."""
    folder = path if path.suffix == ".index" else path.parent
    return DamagedError(
        f"the index is damaged, {path}: {what}; remove {folder} and run millstream index again"
    )


def padded(size: int) -> int:
    """Round a number of bytes up to a multiple of 8."""
    return -(-size // 8) * 8
