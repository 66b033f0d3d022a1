"""``python -m pyinterp``: the same as the ``pyinterp`` command."""

from pyinterp.cli import main

if __name__ == "__main__":
    main()
