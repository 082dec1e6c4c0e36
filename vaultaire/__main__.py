"""`python -m vaultaire`."""

from vaultaire.cli import main

if __name__ == "__main__":
    main(prog_name="vaultaire")
