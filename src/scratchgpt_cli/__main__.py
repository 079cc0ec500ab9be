"""`python -m scratchgpt_cli <command>`: as the command `scratchgpt`."""

from .commands import main

if __name__ == "__main__":
    main()
