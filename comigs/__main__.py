"""`python -m comigs`."""

from comigs.cli import main

main()
