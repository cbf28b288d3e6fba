"""Repeatable benchmarks: CPU per request and requests/s, as ratios against a baseline in the same run."""
