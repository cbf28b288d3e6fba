"""What a run is likely to cost, learnt from runs before: the ground on which work is shed or batched."""


class Costs:
    """Run times by number of items, in seconds, kept per power of two.

    `best` follows fast runs at once and slow ones reluctantly: what does not fit into it cannot be done in
    time. `usual` is the running mean. Several threads may use it: a lost update only makes it learn a little
    later.
    """

    def __init__(self) -> None:
        self._best: dict[int, float] = {}
        self._usual: dict[int, float] = {}

    def observe(self, items: int, seconds: float) -> None:
        """A run of so many items took so long."""
        bucket = items.bit_length()
        best = self._best.get(bucket)
        usual = self._usual.get(bucket)
        if best is None or usual is None:
            self._best[bucket] = self._usual[bucket] = seconds
            return
        self._best[bucket] = seconds if seconds < best else best + 0.1 * (seconds - best)
        self._usual[bucket] = usual + 0.2 * (seconds - usual)

    def best(self, items: int) -> float:
        """The least that a run of so many items takes, as far as is known; never too high for lack of
        knowledge.
        """
        return self._at_or_below(self._best, items)

    def usual(self, items: int) -> float:
        """What a run of so many items usually takes, as far as is known."""
        return self._at_or_below(self._usual, items)

    def known(self, items: int) -> float | None:
        """The least that runs of about so many items took; None if there was none of that size yet."""
        return self._best.get(items.bit_length())

    def doubt(self, items: int) -> None:
        """Work was shed on the word of `best`. Each time the word counts less, so that a wrong one is
        found out.
        """
        bucket = items.bit_length()
        while bucket and bucket not in self._best:
            bucket -= 1
        if bucket:
            self._best[bucket] *= 0.9

    @staticmethod
    def _at_or_below(known: dict[int, float], items: int) -> float:
        bucket = items.bit_length()
        while bucket:
            found = known.get(bucket)
            if found is not None:
                return found
            bucket -= 1
        return 0.0
