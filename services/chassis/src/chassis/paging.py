"""Page tokens of list methods (AIP-158): the position after the last item given, opaque to callers."""

import base64
import binascii

from chassis import errors


def make_token(position: str) -> str:
    """The token of a position."""
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
