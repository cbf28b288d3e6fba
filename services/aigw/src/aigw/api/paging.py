"""Pages of a sorted list: the token is the name of the last item given."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from chassis.paging import make_token, read_token

T = TypeVar("T")


def page(items: Sequence[T], name: Callable[[T], str], size: int, token: str) -> tuple[list[T], str]:
    """One page of items sorted by name, and the token of the next, empty on the last."""
    after = read_token(token)
    rest = [item for item in items if name(item) > after] if after else list(items)
    chosen = rest[:size]
    following = make_token(name(chosen[-1])) if len(rest) > size else ""
    return chosen, following
