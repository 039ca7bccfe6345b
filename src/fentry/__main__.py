"""`python -m fentry` is the command `fentry`."""

from fentry.cli.__main__ import main

if __name__ == "__main__":
    main()
