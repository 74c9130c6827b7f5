"""How samples become text and tokens: the one place that training, evaluation and export render from.

Embedding tasks: a prompt, then the text. The prompt ends with a line break, which byte-level and sentence-piece
tokenizers alike keep apart from what follows, so that the prompt's tokens can be left out of the pooling. Generative
tasks: the base tokenizer's own chat template, or `CHAT_TEMPLATE` where it has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from recfound_data.errors import RecfoundError
from recfound_data.tasks import BUILDERS

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
"""The fallback: a header line a message, its content, the end-of-sequence token."""

DOCUMENT_PROMPT = "Item:\n"


def query_prompt(instruction: str) -> str:
    """Return what stands before an anchor."""
    return f"Instruct: {instruction}\nQuery:\n"


def instruction_of(task: str) -> str:
    """Return the canonical instruction of an embedding task; of one's own, what its samples get that name none."""
    return BUILDERS[task].phrasings[0] if task in BUILDERS else f"Retrieve what fits, task {task}."


def task_prompts(task: str, instruction: str | None = None) -> dict[str, str]:
    """Return the prompts `query` and `document` that an embedding task is evaluated and exported with.

    They hold one phrasing, `instruction` or else the canonical one; training sees all phrasings.
    """
    return {"query": query_prompt(instruction or instruction_of(task)), "document": DOCUMENT_PROMPT}


def with_defaults(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return the tokenizer ready for both kinds of task: a chat template, a padding token, padding on the right."""
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHAT_TEMPLATE
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def text_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], texts: Sequence[str], max_length: int
) -> list[tuple[list[int], int]]:
    """Return the token ids of each text after its prompt, and the place of the first token that is not the prompt's.

    The ids are those that sentence-transformers gives for the prompt and the text, cut at `max_length`.

    Raises:
        RecfoundError: `max_length` leaves no token after a prompt.
    """
    joined = [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
    lengths = {prompt: _prompt_length(tokenizer, prompt) for prompt in set(prompts)}
    longest = max(lengths.values(), default=0)
    if longest >= max_length:
        raise RecfoundError(f"a prompt has {longest} tokens and max_length is {max_length}: nothing is left to embed")
    ids = tokenizer(joined, truncation=True, max_length=max_length)["input_ids"] if joined else []
    return [(one, lengths[prompt]) for one, prompt in zip(ids, prompts, strict=True)]


def _prompt_length(tokenizer: PreTrainedTokenizerBase, prompt: str) -> int:
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - (bool(ids) and ids[-1] in tokenizer.all_special_ids)


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
    """Return the conversation as the model sees it before it answers."""
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)


def completion_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Mapping[str, str]], completion: Sequence[Mapping[str, str]]
) -> tuple[list[int], list[int]]:
    """Return the token ids of a rendered prompt and of what follows it, the end of the turn included.

    They are tokenised apart, as they are at inference, where the model continues the prompt's tokens.

    Raises:
        RecfoundError: the chat template renders a conversation otherwise than its beginning.
    """
    begun = render_prompt(tokenizer, prompt)
    whole = tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
    if not whole.startswith(begun):
        raise RecfoundError(
            "the chat template changes a prompt once it is answered; training on completions needs one that does not"
        )
    answer = whole[len(begun) :].rstrip("\n")
    # Not verbose: whoever asks cuts what is longer than the model's limit, and no warning is due.
    first = tokenizer(begun, add_special_tokens=False, verbose=False)["input_ids"]
    return first, tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"]
