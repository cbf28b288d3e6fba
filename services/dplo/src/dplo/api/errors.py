"""Errors of methods that the contract has and this version does not execute."""

from chassis import errors


def not_available(what: str, instead: str = "") -> errors.Unimplemented:
    """Says so in clear words."""
    hint = f"; {instead}" if instead else ""
    return errors.Unimplemented(
        f"{what} is not available in this version of Penstock{hint}", reason="NOT_AVAILABLE"
    )
