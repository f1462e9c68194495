"""``python -m koser`` is ``koser``."""

from koser.cli import main

if __name__ == "__main__":
    main()
