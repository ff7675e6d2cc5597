"""``python -m jobber`` is the ``jobber`` command."""

from jobber.cli import main

if __name__ == "__main__":
    main()
