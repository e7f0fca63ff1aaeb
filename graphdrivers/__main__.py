"""``python -m graphdrivers`` is the program ``graphdriver``."""

from graphdrivers.cli.entry import main

if __name__ == "__main__":
    main()
