"""Pages of a sorted list: the token is the name of the last item given."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from chassis import errors

T = TypeVar("T")


def page(items: Sequence[T], name: Callable[[T], str], size: int, token: str) -> tuple[list[T], str]:
    """One page of items sorted by name, and the token of the next, empty on the last."""
    after = read_token(token)
    rest = [item for item in items if name(item) > after] if after else list(items)
    chosen = rest[:size]
    following = make_token(name(chosen[-1])) if len(rest) > size else ""
    return chosen, following


def make_token(position: str) -> str:
    """A page token: opaque to callers."""
    return base64.urlsafe_b64encode(position.encode()).decode()


def read_token(token: str) -> str:
    """The position in a page token. Raises InvalidArgument if it is none of ours."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise errors.InvalidArgument(
            "page_token is not one that this method gave; send next_page_token as it was, or none",
            reason="PAGE_TOKEN_INVALID",
            violations=[errors.FieldViolation("page_token", "malformed", "PAGE_TOKEN_INVALID")],
        ) from error
