"""Repeatable benchmarks: CPU per request and requests per second, as ratios against a baseline in the same run."""
