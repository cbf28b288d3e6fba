"""Tokens that channels send, and which metadata travels on."""

from pathlib import Path

import pytest
from chassis import errors
from chassis.channel import FileToken, open_channel
from chassis.settings import ChannelSettings
from chassis.transport.metadata import forwardable, is_forwardable


def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    now, path = [0.0], tmp_path / "token"
    path.write_text("first\nignored\n")
    token = FileToken(path, monotonic=lambda: now[0])
    assert token() == "first"
    path.write_text("second-one\n")
    assert token() == "first"
    now[0] += 1
    assert token() == "second-one"
    path.unlink()
    now[0] += 1
    assert token() == "second-one", "a file that is gone for a moment must not stop calls"


def test_a_token_file_that_never_was_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="none"):
        FileToken(tmp_path / "none")()


async def test_a_channel_needs_an_address() -> None:
    with pytest.raises(errors.InvalidArgument, match="address"):
        async with open_channel(ChannelSettings()):
            pass


@pytest.mark.parametrize(
    ("key", "travels"),
    [
        ("x-request-id", True),
        ("traceparent", True),
        ("x-raw-bin", True),
        ("authorization", False),
        ("grpc-timeout", False),
        ("grpc-encoding", False),
        (":authority", False),
        ("te", False),
        ("connection", False),
        ("user-agent", False),
        ("content-type", False),
        ("host", False),
    ],
)
def test_what_belongs_to_one_hop_stays_there(key: str, travels: bool) -> None:
    assert is_forwardable(key) is travels
    assert forwardable(((key, "v"),)) == (((key, "v"),) if travels else ())
