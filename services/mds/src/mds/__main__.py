"""`python -m mds` is the `mds` command."""

from mds.cli import main

if __name__ == "__main__":
    main()
