"""The same questions answered by two models: chosen so that both have room to answer, scored, and written down."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..data.chat import Message, render_chat
from .contamination import check_overlap
from .responses import (
    Question,
    generate_responses,
    last_questions,
    score_responses,
    texts_of_questions,
    write_responses,
)


def choose_questions(
    conversations: Sequence[Sequence[Message]], tokenizer: PreTrainedTokenizerBase, count: int, longest: int
) -> list[Question]:
    """Up to `count` questions from all over `conversations` whose prompts have at most `longest` tokens."""
    spread = conversations[:: max(1, len(conversations) // (2 * count))]
    return [
        question
        for question in last_questions(spread)
        if len(render_chat(question.messages, tokenizer, add_generation_prompt=True).input_ids) <= longest
    ][:count]


def compare_responses(
    models: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    count: int,
    max_new_tokens: int,
    output_dir: Path,
) -> None:
    """What each of the models answers to the same questions: responses.jsonl, responses.json, and a line for each."""
    context = min(model.config.max_position_embeddings for model in models.values())
    longest = context - min(max_new_tokens, context // 2)  # of a prompt: there must be room for an answer
    questions = choose_questions(conversations, tokenizer, count, longest)
    if not questions:
        print(f"no responses: no question of the validation split is at most {longest} tokens long")
        return
    overlap = check_overlap(list(texts_of_questions(questions, tokenizer)), output_dir / "final")
    if overlap.seen.any():
        print(f"questions: {overlap}: the results are too good by that")
    answers, scores = {}, {}
    for name, model in models.items():
        answers[name] = generate_responses(model, tokenizer, [each.messages for each in questions], max_new_tokens)
        scores[name] = score_responses(answers[name], [question.reference for question in questions])
        low, high = scores[name].exact_stop_interval
        print(
            f"{name}: ROUGE-L {scores[name].rouge_l:.3f}, {scores[name].exact_stop_rate:.1%} of "
            f"{scores[name].num_responses} answers end by the stop token (95 %: {low:.1%} to {high:.1%}), "
            f"{scores[name].mean_tokens:.0f} tokens"
        )
    write_responses(output_dir / "responses.jsonl", questions, answers)
    results = {name: score.as_dict() for name, score in scores.items()}
    (output_dir / "responses.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
