"""The command line; ``vitpress.cli.app`` says what it promises."""

from vitpress.cli.app import main as main
