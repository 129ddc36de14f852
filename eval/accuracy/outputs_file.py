"""Saved outputs: an uncompressed ``.npz``, which any NumPy reads; here its maps are mapped into memory, not read.

Version 2 holds the masks at the size of the frames, as bits: ``np.unpackbits(packed_mask, axis=2, count=W)``. Version 1
held them shrunk to the map, from which nothing can be measured at the image's resolution; it is refused.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ...bundle.atomic import open_atomic
from ...core.errors import BadInputError, UsageError
from ...core.inputs import parse_preprocessing
from ...data.notes import DataNotes
from .outputs import ARRAYS, Outputs, Source

OUTPUTS_VERSION = 2
_SHRUNK = " (its masks are shrunk to the map: nothing can be measured at the image's resolution)"


def save_outputs(outputs: Outputs, path: Path) -> None:
    """Write outputs as an uncompressed ``.npz``, atomically; memory does not grow with the number of maps."""
    header = {"outputs_version": OUTPUTS_VERSION, **dataclasses.asdict(outputs.source)}
    arrays: dict[str, NDArray[Any]] = {
        "header": np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8),
        "files": np.array(outputs.files),
        "defects": np.array(outputs.defects),
        **({"contents": np.array(outputs.contents)} if outputs.contents else {}),
        **{name: getattr(outputs, name) for name in ARRAYS},
    }
    with open_atomic(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array_header_1_0(member, npy.header_data_from_array_1_0(array))
                for row in array if array.ndim > 1 else [array]:
                    member.write(np.ascontiguousarray(row).tobytes())


def open_outputs(path: Path) -> Outputs:
    """Open saved outputs; maps and masks are mapped into memory, read-only.

    Raises:
        BadInputError: the file does not exist, holds no outputs, or holds outputs of another version.
    """
    try:
        arrays = dict(_members(path))
        header: dict[str, Any] = json.loads(arrays["header"].tobytes())
        version = header.pop("outputs_version")
        if version != OUTPUTS_VERSION:
            raise BadInputError(
                f"{path}: outputs of version {version}; this release reads {OUTPUTS_VERSION}"
                f"{_SHRUNK if version == 1 else ''}. Save them again: lineproof evaluate BUNDLE --data DIR "
                "--save-outputs FILE.npz"
            )
        source = _read_source(header)
        files, defects = (tuple(map(str, arrays[name])) for name in ("files", "defects"))
        contents = tuple(map(str, arrays.get("contents", ())))
        maps = {name: arrays[name] for name in ARRAYS}
        return Outputs(source=source, files=files, defects=defects, contents=contents, **maps)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, UsageError) as error:
        raise BadInputError(
            f"{path} holds no saved outputs ({type(error).__name__}: {error}). Make them: lineproof evaluate BUNDLE "
            "--data DIR --save-outputs FILE.npz"
        ) from None


def _read_source(header: Mapping[str, Any]) -> Source:
    skipped = tuple((str(file), str(reason)) for file, reason in header["skipped"])
    # Files of earlier releases do not have these.
    lists = {name: tuple(map(str, header.get(name, ()))) for name in ("conversions", "count_notes")}
    data = DataNotes(**{key: _plain(value) for key, value in header.get("data", {}).items()})
    return Source(
        **{
            **header,
            "preprocessing": parse_preprocessing(header["preprocessing"]),
            "skipped": skipped,
            **lists,
            "data": data,
        }
    )


def _plain(value: Any) -> Any:
    return tuple(map(str, value)) if isinstance(value, list) else str(value)


def _members(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Arrays of an uncompressed ``.npz``, each mapped at its place in the file."""
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            with archive.open(item) as member:
                major, _ = npy.read_magic(member)
                if major != 1 or item.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("compressed, or of another array format")
                shape, is_fortran, dtype = npy.read_array_header_1_0(member)
                if dtype.hasobject or is_fortran:
                    raise ValueError(f"{item.filename} is no plain array")
                start = _data_offset(path, item) + member.tell()
            size = int(np.prod(shape))
            whole = np.memmap(path, dtype, "r", start, (size,)) if size else np.empty(0, dtype)
            yield item.filename.removesuffix(".npy"), whole.reshape(shape)


def _data_offset(path: Path, item: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: after its local header, whose name and extra fields have their own lengths."""
    with path.open("rb") as file:
        file.seek(item.header_offset + 26)
        lengths = file.read(4)
    return item.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
