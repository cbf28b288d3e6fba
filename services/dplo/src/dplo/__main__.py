"""`python -m dplo` is the `dplo` command."""

from dplo.cli import main

if __name__ == "__main__":
    main()
