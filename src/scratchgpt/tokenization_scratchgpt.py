"""The tokenizer at run time: a `tokenizer.json` on the Rust backend, with special tokens and a chat template.

This file is copied into every saved tokenizer, so that it loads where this package is not installed.
"""

import json
import os
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT, PAD, UNK = "<|endoftext|>", "<|pad|>", "<|unk|>"
ROLES = ["<|system|>", "<|user|>", "<|assistant|>"]
END_OF_TURN = "<|end|>"

# A turn is its role token, its content and <|end|>, with nothing between: every border is a special token, so the
# first k messages always render, and tokenise, as a prefix of the first k + 1, and the prompt for an answer is exactly
# how an answer begins. `generation` marks what the assistant writes, <|end|> included: it has to learn to stop.
# Special tokens are spelled out, not joined: `sanitize_control_tokens` of transformers looks for them here.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['content'] is not string -%}"
    "{{- raise_exception('content must be a string; join or drop the other parts of message ' ~ loop.index) -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- message['content'] ~ '<|end|>' -}}{%- endgeneration -%}"
    "{%- elif message['role'] == 'user' -%}"
    "{{- '<|user|>' ~ message['content'] ~ '<|end|>' -}}"
    "{%- elif message['role'] == 'system' -%}"
    "{{- '<|system|>' ~ message['content'] ~ '<|end|>' -}}"
    "{%- else -%}"
    "{{- raise_exception('unknown role ' ~ message['role'] ~ ': use system, user or assistant') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


class ScratchGPTTokenizer(PreTrainedTokenizerFast):
    """The tokenizer of a ScratchGPT model.

    Built from a `tokenizer.json` (`from_pretrained`, or `tokenizer_file=`), a `tokenizers.Tokenizer`
    (`tokenizer_object=`), or the vocabulary and merges of a byte-level BPE that splits as GPT-2 does.

    Args:
        vocab: token → id, or a `vocab.json`.
        merges: pairs of tokens in the order in which they are applied, or a `merges.txt` (if `vocab` is a file).
        bos_token, eos_token: both mark the border between two documents; neither is added to a text by itself.
        pad_token: differs from `eos_token`, so that masking the padding does not mask the end.
        extra_special_tokens: by default all other special tokens of the backend.
        model_max_length: tokens; where `truncation=True` cuts.
        kwargs: as for `PreTrainedTokenizerFast`; `chat_template` is `CHAT_TEMPLATE` by default, where the vocabulary
            has its tokens.

    Raises:
        ValueError: for a `tokenizer.json`, or a vocabulary and merges, that are missing or broken.
    """

    model = models.BPE  # of `vocab` and `merges`; a tokenizer.json says itself which model it has
    model_input_names = ["input_ids", "attention_mask"]
    vocab_files_names = {"tokenizer_file": "tokenizer.json"}

    def __init__(
        self,
        vocab: str | dict[str, int] | None = None,
        merges: str | list[Any] | None = None,
        bos_token: str = END_OF_TEXT,
        eos_token: str = END_OF_TEXT,
        pad_token: str | None = PAD,
        extra_special_tokens: list[str] | None = None,
        model_max_length: int = 1024,
        **kwargs: Any,
    ) -> None:
        backend = kwargs.pop("tokenizer_object", None)
        tokenizer_file = kwargs.pop("tokenizer_file", None)
        if backend is None and tokenizer_file is not None:
            backend = _read(tokenizer_file)
        elif backend is None:
            backend = _gpt2_backend(vocab, merges)
        named = {str(token) for token in (bos_token, eos_token, pad_token, UNK)}
        if extra_special_tokens is None and "additional_special_tokens" not in kwargs:
            added = sorted(backend.get_added_tokens_decoder().items())
            extra_special_tokens = [t.content for _, t in added if t.special and t.content not in named]
        if extra_special_tokens is not None:
            kwargs["extra_special_tokens"] = extra_special_tokens
        if backend.token_to_id(UNK) is not None:
            kwargs.setdefault("unk_token", UNK)
        if all(backend.token_to_id(token) is not None for token in [*ROLES, END_OF_TURN]):
            kwargs.setdefault("chat_template", CHAT_TEMPLATE)
        super().__init__(
            tokenizer_object=backend,
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            model_max_length=model_max_length,
            **kwargs,
        )

    @classmethod
    def from_gpt2(
        cls, vocab_file: str | os.PathLike[str], merges_file: str | os.PathLike[str], **kwargs: Any
    ) -> "ScratchGPTTokenizer":
        """GPT-2's own vocabulary (`encoder.json` and `vocab.bpe`): its 50,257 ids, then `<|pad|>` and the chat tokens.

        Raises:
            ValueError: for files that are missing or of another form.
        """
        kwargs.setdefault("extra_special_tokens", [*ROLES, END_OF_TURN])
        kwargs.setdefault("chat_template", CHAT_TEMPLATE)
        return cls(vocab=os.fspath(vocab_file), merges=os.fspath(merges_file), **kwargs)

    @classmethod
    def convert_to_native_format(cls, **kwargs: Any) -> dict[str, Any]:
        """Unchanged: `__init__` reads the whole `tokenizer.json`, where the parent would take only its vocabulary."""
        kwargs.pop("trust_remote_code", None)
        return kwargs

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> "ScratchGPTTokenizer":
        """As in transformers.

        Raises:
            ValueError: for a local directory whose `tokenizer.json` is missing or broken; names the file.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except Exception:  # the Rust library raises no narrower class
            folder = os.path.join(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
            if os.path.isdir(folder):
                _read(os.path.join(folder, "tokenizer.json"))  # says what is wrong, if it is this file
            raise

    def save_pretrained(self, save_directory: Any, *args: Any, plain: bool = False, **kwargs: Any) -> tuple[str, ...]:
        """As in transformers; with this file beside the tokenizer, for loading without the package.

        Args:
            plain: write the form without code instead. Every transformers from 4.57 on loads it, without
                `trust_remote_code` and as `PreTrainedTokenizerFast`; so do vLLM and other readers of `tokenizer.json`.

        Raises:
            ValueError: for `plain` together with `push_to_hub` (save first, then upload the folder).
        """
        if not plain:
            return super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("push_to_hub"):
            raise ValueError("plain=True cannot push by itself: save first, then upload the folder")
        extra_special_tokens: Any = self.extra_special_tokens
        backend = PreTrainedTokenizerFast(
            tokenizer_object=self.backend_tokenizer,
            model_max_length=self.model_max_length,
            chat_template=self.chat_template,
            padding_side=self.padding_side,
            truncation_side=self.truncation_side,
            clean_up_tokenization_spaces=False,
            split_special_tokens=self.split_special_tokens,
            extra_special_tokens=extra_special_tokens,
            **self.special_tokens_map,
        )
        files = backend.save_pretrained(save_directory, *args, **kwargs)
        config_file = os.path.join(save_directory, "tokenizer_config.json")
        with open(config_file, encoding="utf-8") as file:
            config = json.load(file)
        # Names that transformers 4 knows too, and 5 still reads.
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        config["additional_special_tokens"] = extra_special_tokens
        config["model_input_names"] = self.model_input_names
        config.pop("extra_special_tokens", None)
        config.pop("backend", None)
        with open(config_file, "w", encoding="utf-8") as file:
            json.dump(config, file, indent=2, sort_keys=True, ensure_ascii=False)
            file.write("\n")
        return files


def _read(file: str) -> Tokenizer:
    if not os.path.isfile(file):
        raise ValueError(f"{file} does not exist: save the tokenizer again, or train one (recipes/train_tokenizer.py)")
    try:
        return Tokenizer.from_file(file)
    except Exception as error:  # the Rust library raises no narrower class
        raise ValueError(
            f"{file} is broken ({error}): copy it again, or train a tokenizer (recipes/train_tokenizer.py)"
        ) from error


def _gpt2_backend(vocab: Any, merges: Any) -> Tokenizer:
    if vocab is None or merges is None:
        raise ValueError("give tokenizer_file, tokenizer_object, or both vocab and merges (files or values)")
    try:
        if isinstance(vocab, str):
            vocab, merges = models.BPE.read_file(vocab, merges)
        model = models.BPE(vocab, [tuple(pair) for pair in merges])
    except Exception as error:  # the Rust library raises no narrower class
        raise ValueError(f"no vocabulary and merges of a byte-level BPE ({error}): check both files") from error
    backend = Tokenizer(model)
    split = pre_tokenizers.Split(Regex(GPT2_PATTERN), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    return backend


ScratchGPTTokenizer.register_for_auto_class("AutoTokenizer")
