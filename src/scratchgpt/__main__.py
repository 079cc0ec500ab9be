"""`python -m scratchgpt <command>`: as the command `scratchgpt`."""

from scratchgpt_cli.commands import main

if __name__ == "__main__":
    main()
