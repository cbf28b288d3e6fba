"""`python -m aigw` is the `aigw` command."""

from aigw.cli import main

if __name__ == "__main__":
    main()
