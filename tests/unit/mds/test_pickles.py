"""Pickles are found by name and by content, and nothing else is taken for one."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
import zlib

import numpy as np
import pytest
from mds.domain.pickles import pickle_reason_of

VALUE = {"weights": [1, 2, 3], "name": "x" * 100}


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("owned",)


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


BINARY = pickle.dumps(VALUE)
PICKLES = {
    **{f"protocol {p}": ("m.bin", pickle.dumps(Evil(), protocol=p)) for p in range(6)},
    **{f"plain, protocol {p}": ("m.pt", pickle.dumps(VALUE, protocol=p)) for p in range(2, 6)},
    "by name": ("m.pkl", b"anything"),
    "by name, upper case": ("M.PICKLE", b"anything"),
    "joblib": ("m.joblib", b"anything"),
    "zlib": ("m.bin", zlib.compress(BINARY)),
    "gzip": ("m.bin", gzip.compress(BINARY)),
    "bz2": ("m.bin", bz2.compress(BINARY)),
    "xz": ("m.bin", lzma.compress(BINARY)),
    "lzma": ("m.bin", lzma.compress(BINARY, format=lzma.FORMAT_ALONE)),
    "torch.save": ("m.pt", zipped(**{"archive/data.pkl": BINARY, "archive/data/0": b"1234"})),
    "zip with a pickle of another name": ("m.zip", zipped(inner=BINARY)),
    "array of objects": ("m.npy", npy(np.array([{}, []], dtype=object))),
    "arrays of objects": ("m.npz", npz(a=np.zeros(3), b=np.array([{}], dtype=object))),
}
HARMLESS = {
    "nothing": ("m.bin", b""),
    "text": ("notes.txt", b"It is a list.\nIt ends."),
    "python": ("m.py", b"import numpy\n\ncls = (1, 2)\n"),
    "JSON": ("m.json", b'{"a": [1, 2]}'),
    "array": ("m.npy", npy(np.arange(10.0))),
    "arrays": ("m.npz", npz(a=np.zeros(3), b=np.ones((2, 2)))),
    "zip": ("m.zip", zipped(a=b"hello", b=b"\x80\x09")),
    "compressed text": ("m.gz", gzip.compress(b"hello" * 1000)),
    "broken zlib": ("m.bin", b"\x78\x9c" + b"\0" * 50),
    "weights that begin like one": ("m.bin", b"\x80\x11" + bytes(100)),
    "ONNX": ("m.onnx", b"\x08\x09\x12\x07skl2onnx" + bytes(100)),
    "a full stop": ("m.txt", b"."),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_are_found(name: str) -> None:
    assert pickle_reason_of(*PICKLES[name])


@pytest.mark.parametrize("name", HARMLESS)
def test_others_are_left_in_peace(name: str) -> None:
    assert pickle_reason_of(*HARMLESS[name]) == ""
