"""Arrays to raw tensors and back."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from penstock_client import tensors
from penstock_client.errors import DataLoss, InvalidArgument

NUMERIC = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BF16": ml_dtypes.bfloat16,
}


@pytest.mark.parametrize(("datatype", "dtype"), NUMERIC.items(), ids=NUMERIC)
def test_every_numeric_type_comes_back_as_it_went(datatype: str, dtype: type) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)

    raw = tensors.to_raw(array)
    back = tensors.from_raw(raw, datatype, array.shape)

    assert tensors.datatype_of(array) == datatype
    assert len(raw) == array.nbytes
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_bfloat16_is_the_upper_half_of_a_float32() -> None:
    assert tensors.to_raw(np.array([1.0, -2.5], dtype=ml_dtypes.bfloat16)) == b"\x80\x3f\x20\xc0"


def test_bytes_carry_their_length_in_four_bytes_before_them() -> None:
    assert tensors.to_raw(np.array([b"ab", b""], dtype=object)) == b"\x02\0\0\0ab\0\0\0\0"


def test_text_is_sent_as_utf8() -> None:
    raw = tensors.to_raw(np.array(["é", "ab"]))

    assert tensors.from_raw(raw, "BYTES", [2]).tolist() == ["é".encode(), b"ab"]


def test_big_endian_arrays_are_sent_little_endian() -> None:
    array = np.array([1, 258], dtype=">u2")

    assert tensors.datatype_of(array) == "UINT16"
    assert tensors.to_raw(array) == b"\x01\x00\x02\x01"


def test_a_strided_array_is_sent_in_row_major_order() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3).T

    assert tensors.to_raw(array) == bytes([0, 3, 1, 4, 2, 5])


def test_a_tensor_is_a_view_of_what_came_over_the_wire() -> None:
    raw = np.arange(4, dtype=np.float32).tobytes()

    assert not tensors.from_raw(raw, "FP32", [4]).flags.owndata


@pytest.mark.parametrize(
    ("raw", "datatype", "shape"),
    [
        (b"\0" * 7, "FP32", [2]),
        (b"\0" * 9, "FP32", [2]),
        (b"\x05\0\0\0ab", "BYTES", [1]),
        (b"\x01\0", "BYTES", [1]),
    ],
    ids=["too short", "too long", "element cut off", "length cut off"],
)
def test_damaged_contents_are_data_loss(raw: bytes, datatype: str, shape: list[int]) -> None:
    with pytest.raises(DataLoss):
        tensors.from_raw(raw, datatype, shape)


def test_a_type_without_counterpart_names_those_that_have_one() -> None:
    with pytest.raises(InvalidArgument, match=r"complex64.*FP32"):
        tensors.datatype_of(np.zeros(1, dtype=np.complex64))


@given(
    hnp.arrays(
        st.sampled_from([np.dtype(t) for name, t in NUMERIC.items() if name != "BF16"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
def test_any_array_comes_back_bit_by_bit(array: np.ndarray) -> None:
    back = tensors.from_raw(tensors.to_raw(array), tensors.datatype_of(array), array.shape)

    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_any_byte_strings_come_back(items: list[bytes]) -> None:
    array = np.empty(len(items), dtype=object)
    array[:] = items

    assert tensors.from_raw(tensors.to_raw(array), "BYTES", [len(items)]).tolist() == items
