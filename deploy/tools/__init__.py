"""The real servers and tools under the tests: pinned, brought by one command, kept in the user's cache.

`python -m deploy.tools` (or `make tools`) brings everything; with names, only those. It uses nothing but the
standard library, because it runs before anything else is installed. `catalogue` is the table of what there
is; `go`, `debian`, `wheel` and `pause` are the four ways in which something comes here; `cache` knows where.
"""
