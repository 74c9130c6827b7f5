"""Texts and tokens: what training renders is what sentence-transformers and a chat template render at inference."""

import copy

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tiny_models import base_model, byte_level
from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from recfound_data.errors import RecfoundError
from recfound_data.samples import LETTERS
from recfound_data.tasks import BUILDERS
from recfound_model.batches import TokenSequence, padded, pooled_means
from recfound_model.templates import (
    DOCUMENT_PROMPT,
    completion_ids,
    query_prompt,
    render_prompt,
    task_prompts,
    text_ids,
    with_defaults,
)

TEXTS = [
    "Red kettle, 2 litres\nBy: Pebran",
    "mug",
    " leading space",
    "\nleading line break",
    "\n\n two of them, and trailing ones \n",
    "été naïve 漢字 🫖",
    "1. A list: of things.\n- one\n- two",
    "a long text " * 30,
    "",
]
PROMPTS = [DOCUMENT_PROMPT, *(query_prompt(text) for builder in BUILDERS.values() for text in builder.phrasings)]
LINES = [line for text in [*PROMPTS, *TEXTS] for line in text.splitlines()]
LINES += [f"option {letter}" for letter in LETTERS] * 20


def sentence_piece(texts: list[str]) -> PreTrainedTokenizerFast:
    """As Llama 2's and Mistral's: pieces of lines, spaces as ▁ with one in front, bytes for what has no piece."""
    inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    inner.train_from_iterator([word for text in texts for word in text.split()], trainer)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def with_end(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level, with an end-of-sequence token after each text."""
    tokens = byte_level(texts, 400)
    tokens.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokens


KINDS = {"byte-level": lambda texts: byte_level(texts, 400), "sentencepiece": sentence_piece, "with an end": with_end}


def tokenize_texts(tokenizer, prompts, texts, max_length):
    """The padded layout of texts after their prompts."""
    ids = text_ids(tokenizer, prompts, texts, max_length)
    return padded([TokenSequence("query2item", one, first) for one, first in ids], tokenizer.pad_token_id)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return with_defaults(KINDS[request.param](LINES))


@pytest.fixture(scope="module")
def stock(tokenizer, tmp_path_factory):
    """(Transformer, Pooling) of stock sentence-transformers, as a function of the length at which texts are cut."""
    folder = str(tmp_path_factory.mktemp("trunk"))
    base_model(vocab_size=len(tokenizer), max_position_embeddings=512).get_decoder().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    text = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}

    def load(max_length):
        transformer = Transformer(
            folder, max_seq_length=max_length, modality_config=text, module_output_name="token_embeddings"
        )
        return transformer, Pooling(32, "mean", include_prompt=False)

    return load


@pytest.mark.parametrize("prompt", [DOCUMENT_PROMPT, PROMPTS[1], query_prompt("Find it: ")])
@pytest.mark.parametrize("beyond", [1, 3, 12, 400])
def test_tokens_and_pooling_are_those_of_sentence_transformers(tokenizer, stock, prompt, beyond):
    max_length = len(tokenizer(prompt)["input_ids"]) + beyond
    transformer, pooling = stock(max_length)
    theirs = transformer.preprocess(TEXTS, prompt=prompt)
    ours = tokenize_texts(tokenizer, [prompt] * len(TEXTS), TEXTS, max_length)
    assert torch.equal(ours.input_ids, theirs["input_ids"])
    assert torch.equal((ours.sequence >= 0).long(), theirs["attention_mask"])
    length = theirs["prompt_length"]
    assert length == int((~ours.marked)[0].cumprod(0).sum())
    assert torch.equal(ours.marked, (ours.sequence >= 0) & (torch.arange(ours.marked.shape[1]) >= length))
    with torch.no_grad():
        features = transformer(dict(theirs))
        hidden = features["token_embeddings"]
        expected = torch.nn.functional.normalize(pooling(features)["sentence_embedding"], dim=-1)
    filled = ours.marked.any(dim=1)
    assert filled[:-1].all()
    torch.testing.assert_close(pooled_means(hidden, ours)[filled], expected[filled])


def test_texts_with_different_prompts_leave_out_each_its_own(tokenizer):
    prompts = [DOCUMENT_PROMPT, PROMPTS[1], PROMPTS[2]]
    together = tokenize_texts(tokenizer, prompts, TEXTS[:3], 512)
    for row, (prompt, text) in enumerate(zip(prompts, TEXTS, strict=False)):
        alone = tokenize_texts(tokenizer, [prompt], [text], 512)
        length = alone.input_ids.shape[1]
        assert torch.equal(together.marked[row, :length], alone.marked[0]) and not together.marked[row, length:].any()
        assert torch.equal(together.input_ids[row, :length], alone.input_ids[0])


def test_prompts_end_on_a_token_boundary(tokenizer):
    for prompt in PROMPTS:
        alone = tokenizer(prompt)["input_ids"]
        alone = alone[: -(alone[-1] in tokenizer.all_special_ids) or None]
        for text in (text for text in TEXTS if text[:1] != "\n"):
            assert tokenizer(prompt + text)["input_ids"][: len(alone)] == alone, (prompt, text)


def test_training_phrasings_hold_the_exported_prompt_first():
    for task, builder in BUILDERS.items():
        assert task_prompts(task) == {"query": query_prompt(builder.phrasings[0]), "document": DOCUMENT_PROMPT}
    assert len({task_prompts(task)["query"] for task in [*BUILDERS, "one_of_my_own"]}) == len(BUILDERS) + 1


def test_a_prompt_that_leaves_nothing_to_embed_is_refused(tokenizer):
    prompts, texts = [DOCUMENT_PROMPT, PROMPTS[1]], ["kettle"] * 2
    longest = int((~tokenize_texts(tokenizer, prompts[1:], texts[1:], 512).marked[0]).sum())
    for max_length in (8, longest - 1, longest):
        words = rf"a prompt has {longest} tokens and max_length is {max_length}: nothing is left"
        with pytest.raises(RecfoundError, match=words):
            tokenize_texts(tokenizer, prompts, texts, max_length)
    assert tokenize_texts(tokenizer, prompts, texts, longest + 1).marked.any(dim=1).all()


def test_defaults_fill_in_only_what_is_missing():
    bare = byte_level(LINES, 400)
    bare.chat_template = None
    bare.padding_side = "left"
    filled = with_defaults(bare)
    assert "<|' + message['role']" in filled.chat_template
    assert filled.pad_token == filled.eos_token and filled.padding_side == "right"
    own = byte_level(LINES, 400)
    own.pad_token, template = "<s>", own.chat_template
    assert with_defaults(own).pad_token == "<s>" and own.chat_template == template


def test_an_exported_tokenizer_is_the_one_of_training(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = with_defaults(PreTrainedTokenizerFast.from_pretrained(tmp_path))
    ours, theirs = (tokenize_texts(t, [DOCUMENT_PROMPT] * len(TEXTS), TEXTS, 64) for t in (tokenizer, again))
    assert torch.equal(ours.input_ids, theirs.input_ids) and torch.equal(ours.marked, theirs.marked)
    assert again.chat_template == tokenizer.chat_template


# --- completions

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }}[/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {"fallback": None, "chatml": CHATML, "mistral": MISTRAL}
QUESTION = [{"role": "user", "content": "Which option?\n\nA. Mug\nB. Kettle\n"}]
ANSWER = [{"role": "assistant", "content": "B"}]


@pytest.fixture(params=TEMPLATES)
def chatting(request, tokenizer):
    """A tokenizer with a chat template, and the token that ends a turn."""
    tokens = copy.deepcopy(tokenizer)
    tokens.chat_template = TEMPLATES[request.param]
    if request.param == "chatml":
        tokens.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    end = "<|im_end|>" if request.param == "chatml" else tokens.eos_token
    return with_defaults(tokens), tokens.convert_tokens_to_ids(end)


def test_a_completion_continues_the_prompt_of_inference_and_ends_its_turn(chatting):
    tokens, end = chatting
    prompt, answer = completion_ids(tokens, QUESTION, ANSWER)
    begun = render_prompt(tokens, QUESTION)
    assert prompt == tokens(begun, add_special_tokens=False)["input_ids"]
    assert answer[-1] == end and answer.count(end) == 1
    assert tokens.decode(answer[:-1]).strip() == "B"
    whole = tokens.apply_chat_template([*QUESTION, *ANSWER], tokenize=False)
    assert whole.startswith(begun) and len(prompt) > 5
    together = tokens(whole, add_special_tokens=False)["input_ids"]
    assert together[: len(prompt)] == prompt and end in together[len(prompt) :]


def test_a_template_that_rewrites_a_prompt_once_it_is_answered_is_refused(tokenizer):
    tokens = copy.deepcopy(tokenizer)
    tokens.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {% if loop.last %}{{ m['content'] }}{% else %}"
        "{{ m['content'] | upper }}{% endif %}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(RecfoundError, match="changes a prompt once it is answered"):
        completion_ids(tokens, QUESTION, ANSWER)


def test_an_exported_embedder_tokenizes_as_training_does(tokenizer, stock):
    transformer, pooling = stock(48)
    embedder = SentenceTransformer(modules=[transformer, pooling], prompts=task_prompts("query2item"), device="cpu")
    prompt = task_prompts("query2item")["document"]
    found = embedder.encode_document(TEXTS[:8], convert_to_tensor=True, normalize_embeddings=True)
    inputs = tokenize_texts(tokenizer, [prompt] * 8, TEXTS[:8], 48)
    with torch.no_grad():
        mask = (inputs.sequence >= 0).long()
        hidden = transformer.auto_model(input_ids=inputs.input_ids, attention_mask=mask)
    torch.testing.assert_close(found, pooled_means(hidden.last_hidden_state, inputs), rtol=1e-4, atol=1e-5)
