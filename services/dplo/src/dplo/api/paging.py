"""How long the pages of lists are."""

DEFAULT_PAGE = 50
MAX_PAGE = 1000


def page_size(asked: int) -> int:
    """How many items a page has: as asked, within bounds."""
    return min(asked or DEFAULT_PAGE, MAX_PAGE)
