"""`python -m penstock_client`: the `penstock` command without its script."""

from penstock_client.cli import main

main()
