"""Talk with a model in the terminal.

    python recipes/chat.py --model runs/demo/chat/final
    python recipes/chat.py --model runs/dolly/final --base runs/base/final --system "Answer in one sentence."
    python recipes/chat.py --model runs/dolly/final --weight_bits 8 --compile true       # fast on the CPU
    python recipes/chat.py --model runs/dolly/final --prompt "What is a list?" --temperature 0 > answer.txt
    python recipes/chat.py --model runs/demo/chat/final --documents runs/demo/data/reference

`--model` is a model directory or Hub name, quantised or not, or an adapter, which finds its base by itself unless that
has moved. With `--prompt` standard output holds the answer and nothing else.

With `--documents` (a folder of texts, a file or a data set) the model reads the passage that has most in common with
the question, which is named, and every question stands for itself. That is for models that learned to answer so, such
as the demo's.

In the chat, /reset forgets what was said, /save FILE appends the conversation to a JSON lines file, /quit leaves.
Ctrl-C ends an answer; what there is of it stays. The oldest questions and answers leave when the context is full.
"""

import contextlib
import sys
from dataclasses import dataclass
from typing import Literal

from transformers import set_seed
from transformers.utils.logging import disable_progress_bar

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe
from scratchgpt.data.passages import Passages
from scratchgpt.inference.chat import Answer, ChatSession, Sampling
from scratchgpt.inference.decoding import load_for_decoding
from scratchgpt.performance import check_device

EXIT_CTRL_C = 130  # as shells have it
HELP = "/reset forgets what was said; /save FILE appends the conversation to FILE (chat.jsonl); /quit or Ctrl-D leaves"


@dataclass
class ChatArguments(RecipeArguments):
    HELP_GROUPS = {"model": "Model", "prompt": "Answers", "dtype": "Speed and memory"}

    model: str = required("Model directory or Hub name, or the directory of an adapter.")
    base: str | None = option(None, "The base of an adapter, if it is no longer where it was.")
    prompt: str | None = option(None, "Answer this, print the answer, and stop.")
    system: str | None = option(None, "A system message.")
    documents: str | None = option(None, "Texts to answer from: a folder, a file or a data set.")
    seed: int | None = option(None, "The same answers in every run.", at_least=0)

    max_new_tokens: int | None = option(
        None,
        "Tokens of an answer, at most; the context keeps so many free. Default: half of it, up to 256; with documents "
        "a quarter.",
        at_least=1,
    )
    temperature: float | None = option(
        None, "0: always the likeliest token; higher: more varied. Default: 0.7; with documents 0.", at_least=0
    )
    top_k: int = option(50, "Only the k likeliest tokens; 0: all.", at_least=0)
    top_p: float = option(1.0, "Only the likeliest tokens that together have this probability.", above=0, at_most=1)
    min_p: float = option(0.0, "Only tokens with this share of the likeliest one's probability.", at_least=0, below=1)
    repetition_penalty: float = option(1.0, "Above 1, tokens that occurred become less likely.", above=0)

    dtype: Literal["float32", "bfloat16", "float16"] | None = option(None, "Default: bfloat16 where it is fast.")
    weight_bits: Literal[8, 4] | None = option(None, "Weights rounded to so many bits, for speed on the CPU.")
    compile: bool = option(False, "Compile the decoding step: faster answers, after a wait for the first one.")
    device: str = option("cpu", "Where to compute: cpu, cuda, …")

    def sampling(self, context: int) -> Sampling:
        """For a model with so many tokens of context."""
        tokens, temperature = self.max_new_tokens, self.temperature
        if self.documents is not None and tokens is None:
            tokens = max(1, context // 4)
        if temperature is None:
            temperature = 0.7 if self.documents is None else 0.0
        return Sampling(tokens, temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty)


def note(text: str) -> None:
    """Says something beside the answers, on standard error."""
    print(f"[{text}]", file=sys.stderr, flush=True)


def ask(session: ChatSession, text: str, passages: Passages | None = None) -> Answer:
    """Prints the answer while it comes, and says what it is from, why it is cut, or what was forgotten for it.

    Raises:
        ValueError: as `ChatSession.ask`, and where no passage fits the question.
    """
    if passages is not None:
        found, text = passages.prompt(text)
        note(f"from {found.source}: {found.text.splitlines()[0]}")
        session.reset()
    answer = session.ask(text, on_text=lambda piece: print(piece, end="", flush=True))
    print(flush=True)
    if answer.num_dropped:
        note(f"the oldest {answer.num_dropped} messages have left the context of {session.context} tokens")
    if answer.ending == "length":
        note(f"cut at {answer.num_tokens} tokens: --max_new_tokens")
    if answer.ending == "interrupted":
        note("interrupted" if answer.text else "interrupted before the first word: the question is forgotten")
    return answer


def command(session: ChatSession, line: str) -> None:
    """Does what a line that begins with a slash asks for, except `/quit`."""
    name, _, argument = line.partition(" ")
    if name == "/reset":
        session.reset()
        note("everything is forgotten" + (" but the system message" if session.system else ""))
    elif name == "/save":
        file = argument.strip() or "chat.jsonl"
        try:
            session.save(file)
        except OSError as error:
            note(f"{file} cannot be written: {error.strerror}")
        else:
            note(f"{len(session.messages)} messages saved in {file}")
    else:
        note(HELP if name == "/help" else f"unknown command {name}: {HELP}")


def talk(session: ChatSession, passages: Passages | None = None) -> None:
    """Questions and answers until /quit or the end of the input."""
    with contextlib.suppress(ImportError):  # not on Windows
        import readline  # noqa: F401 - input() then has line editing and history

    note(HELP)
    while True:
        try:
            line = input("> ").strip()
            if line == "/quit":
                return
            if line.startswith("/"):
                command(session, line)
            elif line:
                ask(session, line, passages)
        except ValueError as error:
            note(str(error))
        except KeyboardInterrupt:  # not in an answer, which takes care of it
            print()
            note("Ctrl-D or /quit leaves")
        except EOFError:
            print()
            return


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ChatArguments, argv)
    disable_progress_bar()
    check_device(arguments.device)
    passages = Passages.read(arguments.documents) if arguments.documents is not None else None
    if arguments.seed is not None:
        set_seed(arguments.seed)
    model, tokenizer = load_for_decoding(
        arguments.model, arguments.base, arguments.dtype, arguments.weight_bits, arguments.device
    )
    sampling = arguments.sampling(model.config.max_position_embeddings)
    session = ChatSession(model, tokenizer, arguments.system, sampling, arguments.compile)
    if arguments.prompt is None:
        talk(session, passages)
    elif ask(session, arguments.prompt, passages).ending == "interrupted":
        sys.exit(EXIT_CTRL_C)


if __name__ == "__main__":
    run_recipe(main)
