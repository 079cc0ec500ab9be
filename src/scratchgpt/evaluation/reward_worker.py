"""A process that calls a reward of the user's, so that one which hangs, exits or crashes takes no training with it.

It is run by `rewards.Worker` as a program of its own (`python -c`, with this file as the text), hence without torch
and without the package: it takes `module:function`, answers each line of standard input, a JSON list of [prompt,
answer, row], with a line for each of them, {"value"} or {"error"}, and ends with its input. What the reward prints
goes to standard error.
"""

import hashlib
import importlib
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any


def main(name: str) -> None:
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which finishes its step first
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # the run was killed, and the reward may be in a loop without end

    threading.Thread(target=watch, daemon=True).start()

    def say(**values: Any) -> None:
        channel.write(json.dumps(values) + "\n")
        channel.flush()

    module, _, attribute = name.partition(":")
    try:
        loaded = importlib.import_module(module)
        function = vars(loaded)[attribute]
        say(source=hashlib.sha256(Path(loaded.__file__ or "").read_bytes()).hexdigest())
    except KeyError:
        say(error=f"is not there: {module} has no function {attribute}")
        return
    except BaseException as error:
        say(error=f"cannot be imported: {in_words(error)}")
        return
    for line in sys.stdin:
        for prompt, answer, row in json.loads(line):
            try:
                found = checked(function(prompt, answer, row))
            except Exception as error:
                found = {"error": f"raised {in_words(error)}"}
            say(**found)
            if "error" in found:  # the run ends, and would end this process in the middle of the next call
                return


def checked(value: Any) -> dict[str, Any]:
    """{"value": a finite number} or {"error": what is wrong with it}."""
    if value is None or isinstance(value, str | bytes):
        return {"error": f"returned {value!r}, not a number"}
    try:
        number = float(value)
    except (TypeError, ValueError):
        return {"error": f"returned {str(value)[:40]}, a {type(value).__name__}, not a number"}
    return {"value": number} if math.isfinite(number) else {"error": f"returned {number}"}


def in_words(error: BaseException) -> str:
    """`ZeroDivisionError: division by zero (rewards.py, line 3)`"""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [each for each in frames if not each.filename.startswith("<")]  # of Python itself, and of this program
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


if __name__ == "__main__":
    main(sys.argv[1])
