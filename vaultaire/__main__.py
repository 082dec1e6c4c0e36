"""`python -m vaultaire`."""

try:
    from vaultaire.cli import main
except ModuleNotFoundError as error:  # a clone in which nothing was installed yet
    if (error.name or "").startswith(("vaultaire", "cas", "index")):
        raise
    raise SystemExit(
        f"Vaultaire needs {error.name}, which is not installed. In a clone of Vaultaire, this installs all of it and starts "
        "the server:\n  python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/vaultaire serve"
    ) from None

if __name__ == "__main__":
    main(prog_name="vaultaire")
