"""Tells pickles, which run code when they are read, by name and by content.

By content: pickles of protocol 2 and up, text pickles, what torch.save and joblib write, compressed ones, and
numpy arrays of objects. It is a guard against mistakes and plain attacks, not a proof: code that a package
brings along runs anyway, which is why packages are only served from where one trusts.
"""

import bz2
import io
import lzma
import pickletools
import zipfile
import zlib
from typing import BinaryIO

SUFFIXES = (".pkl", ".pickle", ".joblib", ".pkl.gz", ".pickle.gz", ".joblib.gz", ".dill", ".cloudpickle")
_HEAD = 64 * 1024
_TEXT_LIMIT = 256 * 1024


def pickle_reason(path: str, file: BinaryIO) -> str:
    """Why the file counts as a pickle, as the end of a sentence; empty if it does not. `file` must be
    seekable.
    """
    if path.lower().endswith(SUFFIXES):
        return f"its name ends with {path[path.rindex('.') :]}"
    file.seek(0)
    head = file.read(_HEAD)
    if head.startswith(b"PK\x03\x04"):
        return _in_zip(file)
    return _in_bytes(head) or _in_compressed(head) or _in_text(head, file)


def _in_bytes(head: bytes) -> str:
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return "its content is a pickle"
    if head.startswith(b"\x93NUMPY") and b"'|O" in head[:1024]:
        return "it is a numpy array of Python objects, which is stored as a pickle"
    return ""


def _in_compressed(head: bytes) -> str:
    start = b""
    try:
        if head.startswith((b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")):
            start = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(head, 4096)
        elif head.startswith(b"BZh"):
            start = bz2.BZ2Decompressor().decompress(head, 4096)
        elif head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
            start = lzma.LZMADecompressor().decompress(head, 4096)
    except (zlib.error, OSError, lzma.LZMAError, EOFError):
        return ""
    return "it is a compressed pickle" if _in_bytes(start) else ""


def _in_text(head: bytes, file: BinaryIO) -> str:
    """Pickles of protocol 0 and 1 have no mark: they are read as a program, which must end with the file."""
    if not head[:1] or head[:1] not in b"(cdl]}IFLSUVXGKMJNT":
        return ""
    file.seek(0)
    data = file.read(_TEXT_LIMIT + 1)
    if len(data) > _TEXT_LIMIT or not data.rstrip(b"\r\n").endswith(b"."):
        return ""
    calls = False
    try:
        for opcode, _, position in pickletools.genops(data):
            calls = calls or opcode.name in (
                "GLOBAL",
                "INST",
                "OBJ",
                "REDUCE",
                "BUILD",
                "STACK_GLOBAL",
                "NEWOBJ",
            )
            if opcode.name == "STOP":
                return "its content is a text pickle" if calls or (position or 0) > 1 else ""
    except (ValueError, UnicodeDecodeError, IndexError):
        return ""
    return ""


def _in_zip(file: BinaryIO) -> str:
    """torch.save writes a zip with `data.pkl`, numpy.savez one with arrays, which may be of objects."""
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist()[:4096]:
                if entry.filename.lower().endswith(SUFFIXES):
                    return f"it is a zip that holds the pickle {entry.filename}"
                if entry.flag_bits & 1:
                    continue  # encrypted: nothing that reads models opens it
                with archive.open(entry) as inner:
                    reason = _in_bytes(inner.read(1024))
                if reason:
                    return f"it is a zip that holds {entry.filename}, a pickle"
    except (zipfile.BadZipFile, NotImplementedError, OSError, zlib.error, EOFError, ValueError):
        return ""
    return ""


def pickle_reason_of(path: str, data: bytes) -> str:
    """`pickle_reason` of bytes."""
    return pickle_reason(path, io.BytesIO(data))
