"""Pages of ordered lists: the token is the position after the last item given."""

import base64
import binascii

from chassis import errors

DEFAULT_PAGE = 50
MAX_PAGE = 1000


def page_size(asked: int) -> int:
    """How many items a page has: as asked, within bounds."""
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def make_token(position: str) -> str:
    """Opaque to callers."""
    return base64.urlsafe_b64encode(position.encode()).decode()


def read_token(token: str) -> str:
    """The position in a token; "" for the first page. Raises InvalidArgument if it is none of ours."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise errors.InvalidArgument(
            "page_token is not one that this method gave; send next_page_token as it was, or none",
            reason="PAGE_TOKEN_INVALID",
            violations=[errors.FieldViolation("page_token", "malformed", "PAGE_TOKEN_INVALID")],
        ) from error
