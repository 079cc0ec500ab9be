"""Conversations → ids: rendering by the chat template, and a mask of what the assistant says.

    <|user|> What is 2 + 2 ? <|end|> <|assistant|> 4 <|end|>
    0        0    0  0 0 0 0 0       0             1 1          assistant mask: the stop token is learned too

A conversation is rendered by the tokenizer's own chat template, so training, `apply_chat_template`, pipelines and
chats agree on it. One thing differs from `apply_chat_template`: what a person typed stays text. A message that spells
`<|end|>` gets the ids of its seven characters, never the special token (which transformers does only from 5.16 on,
and only when asked). The price is a detour: special tokens in messages are replaced by characters that occur nowhere,
the template is rendered, the result is cut at the special tokens that are left, and the pieces between them, with what
was replaced put back, are encoded as text (`encoding.encode_typed`, the rule for all text that people type).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from .encoding import encode_typed

Message = dict[str, str]
"""{"role": "system", "user" or "assistant", "content": text}"""

PLAIN_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '\n\n### Response:\n' -}}{%- generation -%}{{- message['content'] ~ eos_token -}}{%- endgeneration -%}"
    "{%- elif message['role'] == 'user' -%}"
    "{{- ('' if loop.first else '\n\n') ~ '### Instruction:\n' ~ message['content'] -}}"
    "{%- elif message['role'] == 'system' -%}"
    "{{- ('' if loop.first else '\n\n') ~ message['content'] -}}"
    "{%- else -%}"
    "{{- raise_exception('unknown role ' ~ message['role'] ~ ': use system, user or assistant') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '\n\n### Response:\n' -}}{%- endif -%}"
)
"""Alpaca's style, for a base that is not to get role tokens: headings in plain text, end-of-text where an answer
stops. A heading that a user types cannot be told from the template's own (source: Stanford Alpaca)."""


@dataclass(frozen=True)
class RenderedChat:
    """The ids of a conversation, and which of them the assistant is to produce; both of one length."""

    input_ids: list[int]
    assistant_mask: list[bool]


def text_of_ids(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """What the ids of a conversation say, with a line end for each special token, so that no words run together."""
    text = str(tokenizer.decode(list(ids)))
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(str(token), "\n")
    return text


def render_chats(
    conversations: Iterable[Sequence[Message]],
    tokenizer: PreTrainedTokenizerBase,
    add_generation_prompt: bool = False,
) -> list[RenderedChat]:
    """Each conversation by the tokenizer's chat template, with what the messages say encoded as text.

    On messages without special tokens the ids are those of `tokenizer.apply_chat_template`. A prompt (its messages
    with `add_generation_prompt`) is exactly how the conversation that answers it begins.

    Args:
        conversations: many at once are faster than one by one.
        add_generation_prompt: end with the assistant's role token, for an answer to follow.

    Raises:
        ValueError: for a tokenizer without a chat template, and for a conversation that the template refuses (an
            unknown role, content that is not text); names the conversation by its number.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            "the tokenizer has no chat template, so the model has not learned to answer: tune it by "
            "recipes/finetune_instruct.py"
        )
    special_ids = {str(token): i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    specials = tuple(special_ids)
    cut = _splitter(specials)
    pieces: list[str] = []  # all texts between special tokens, encoded at once below
    plans: list[list[tuple[int | None, bool]]] = []  # of each conversation: (special id, or None for a text; mask)
    for number, messages in enumerate(conversations):
        plan: list[tuple[int | None, bool]] = []
        for text, learned in _rendered_parts(number, messages, tokenizer, specials, add_generation_prompt):
            for i, piece in enumerate(cut.split(text)):
                if i % 2:
                    plan.append((special_ids[piece], learned))
                elif piece:
                    plan.append((None, learned))
                    pieces.append(_put_back(piece, specials))
        plans.append(plan)
    encoded = iter(encode_typed(pieces, tokenizer))
    chats = []
    for plan in plans:
        ids: list[int] = []
        mask: list[bool] = []
        for special_id, learned in plan:
            part = next(encoded) if special_id is None else [special_id]
            ids += part
            mask += [learned] * len(part)
        chats.append(RenderedChat(ids, mask))
    return chats


def render_chat(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, add_generation_prompt: bool = False
) -> RenderedChat:
    """`render_chats` for one conversation."""
    return render_chats([messages], tokenizer, add_generation_prompt)[0]


def stop_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer by the tokenizer's chat template: `<|end|>`, or end-of-text in the plain one.

    Raises:
        ValueError: where the template ends an answer with text, which no generation could stop at.
    """
    chat = render_chat([{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}], tokenizer)
    learned = [token for token, is_learned in zip(chat.input_ids, chat.assistant_mask, strict=True) if is_learned]
    unknown = tokenizer.unk_token_id != tokenizer.eos_token_id  # which in GPT-2 are one
    if (
        not learned
        or learned[-1] not in tokenizer.all_special_ids
        or (unknown and learned[-1] == tokenizer.unk_token_id)
    ):
        raise ValueError(
            "the chat template does not end an answer with a special token inside {% generation %} … "
            "{% endgeneration %}: take --chat_template plain, or a tokenizer with role tokens"
        )
    return learned[-1]


def end_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Where pipelines and servers stop: an answer at the template's stop token, a text at the end of text.

    Raises:
        ValueError: as `stop_token_id`.
    """
    ids: Any = tokenizer  # annotated as if ids could be text
    return sorted({stop_token_id(tokenizer), ids.eos_token_id})


BREAK = "\ufdd1"
"""A code point that Unicode reserves for uses like this one: it never stands in a text that is exchanged."""

DIGITS = "\ufdd2\ufdd3\ufdd4\ufdd5\ufdd6\ufdd7\ufdd8\ufdd9\ufdda\ufddb"
"""0 … 9, reserved likewise."""


@lru_cache(maxsize=8)
def _splitter(specials: tuple[str, ...]) -> re.Pattern[str]:
    """Cuts a text into [text, special, text, …, text]; the longest special token wins."""
    return re.compile("(" + "|".join(map(re.escape, sorted(specials, key=len, reverse=True))) + ")")


def _replaced(text: str, specials: tuple[str, ...]) -> str:
    """`text` without special tokens: BREAK, its number in `specials`, BREAK for each, and BREAK twice for BREAK."""

    def replacement(found: re.Match[str]) -> str:
        return BREAK + "".join(DIGITS[int(digit)] for digit in str(specials.index(found[0]))) + BREAK

    return _splitter(specials).sub(replacement, text.replace(BREAK, BREAK + BREAK))


def _put_back(text: str, specials: tuple[str, ...]) -> str:
    """The inverse of `_replaced`."""

    def original(found: re.Match[str]) -> str:
        return specials[int("".join(str(DIGITS.index(digit)) for digit in found[1]))] if found[1] else BREAK

    return re.sub(f"{BREAK}([{DIGITS}]*){BREAK}", original, text)


GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""The mark in a template of what the assistant says."""


def _rendered_parts(
    number: int,
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    specials: tuple[str, ...],
    add_generation_prompt: bool,
) -> list[tuple[str, bool]]:
    """The rendered text, cut where the assistant begins and ends: (text, whether it is the assistant's)."""
    conversation = []
    for message in messages:
        content = message.get("content")
        content = _replaced(content, specials) if isinstance(content, str) else content
        conversation.append({**message, "content": content})
    render: Any = render_jinja_template  # annotated as if it returned one text
    try:
        template = tokenizer.get_chat_template()
        (text,), marked = render(
            conversations=[conversation],
            chat_template=template,
            return_assistant_tokens_mask=GENERATION.search(template) is not None,
            add_generation_prompt=add_generation_prompt,
            **tokenizer.special_tokens_map,
        )
    except (TemplateError, ValueError) as error:
        raise ValueError(f"conversation {number} cannot be rendered: {error}") from error
    spans = marked[0] if marked else []
    if not spans and (answers := [i for i, message in enumerate(conversation) if message["role"] == "assistant"]):
        spans = _spans_by_prefix(text, conversation, answers, render, tokenizer, specials)
    parts, end = [], 0
    for start, stop in spans:
        parts += [(text[end:start], False), (text[start:stop], True)]
        end = stop
    return [*parts, (text[end:], False)]


def _spans_by_prefix(
    text: str,
    conversation: list[dict[str, Any]],
    answers: list[int],
    render: Any,
    tokenizer: PreTrainedTokenizerBase,
    specials: tuple[str, ...],
) -> list[tuple[int, int]]:
    """Where answers stand in `text` by a template that does not mark them with {% generation %}, as most do not.

    An answer begins where the prompt before it ends, and ends with the first special token after what it says. Nothing
    is found where a prompt is not how the conversation begins (templates that rewrite earlier turns).
    """
    spans = []
    for number in answers:
        (prompt,), _ = render(
            conversations=[conversation[:number]],
            chat_template=tokenizer.get_chat_template(),
            add_generation_prompt=True,
            **tokenizer.special_tokens_map,
        )
        content = conversation[number]["content"].strip()
        said = text.find(content, len(prompt))
        if not text.startswith(prompt) or said < 0:
            return []
        end = _splitter(specials).search(text, said + len(content))
        if end is None:
            return []
        spans.append((len(prompt), end.end()))
    return spans
