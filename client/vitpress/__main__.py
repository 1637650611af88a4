"""``python -m vitpress``."""

from vitpress.cli import main

main()
