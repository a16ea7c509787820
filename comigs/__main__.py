"""`python -m comigs`."""

from comigs.cli.commands import main

main()
