"""BERTScore (Zhang et al., ICLR 2020, arXiv 1904.09675) with any encoder on disk.

The formulas and the treatment of special tokens are those of the authors' package `bert-score`, which fails on empty
answers under transformers 5. No idf weights and no rescaling: values of two scoring models cannot be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.progress import Progress

_PAIRS_AT_ONCE = 32
_MOST_TOKENS = 512


class BertScorer:
    """A scoring model: token vectors are the hidden states of one of its layers, the last where none is named."""

    def __init__(self, source: str, layer: int | None = None) -> None:
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(source)
            self.model = AutoModel.from_pretrained(source, use_safetensors=True).eval()
        except (OSError, ValueError, KeyError) as error:
            raise RecfoundError(f"BERTScore's model {source}: cannot be loaded: {_first(error)}") from None
        layers = int(self.model.config.num_hidden_layers)
        self.source, self.layer = source, layers if layer is None else layer
        if not 1 <= self.layer <= layers:
            raise UsageError(f"BERTScore's model {source} has layers 1 to {layers}, and {layer} was asked for")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)

    def f1(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return F1 of each answer; 0 for an empty one."""
        order = sorted(range(len(answers)), key=lambda at: -max(len(answers[at]), len(references[at])))
        found = [0.0] * len(answers)
        with Progress("BERTScore", len(answers)) as progress:
            for first in range(0, len(order), _PAIRS_AT_ONCE):
                batch = order[first : first + _PAIRS_AT_ONCE]
                said = self._vectors([answers[at] for at in batch])
                right = self._vectors([references[at] for at in batch])
                for at, value in zip(batch, greedy_f1(*said, *right).tolist(), strict=True):
                    found[at] = value if answers[at].strip() and references[at].strip() else 0.0
                progress.advance(len(batch))
        return found

    @torch.inference_mode()
    def _vectors(self, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Return vectors [texts, tokens, size], whether a token is there, and whether it counts."""
        longest = min(self.tokenizer.model_max_length, self.model.config.max_position_embeddings, _MOST_TOKENS)
        stripped = [text.strip() for text in texts]
        coded = self.tokenizer(
            stripped, padding=True, truncation=True, max_length=longest, return_special_tokens_mask=True,
            return_tensors="pt",
        )  # fmt: skip
        # Special tokens may be matched, and none of them is averaged over.
        special = coded.pop("special_tokens_mask").bool()
        coded = {name: tensor.to(self.device) for name, tensor in coded.items()}
        hidden = self.model(**coded, output_hidden_states=True).hidden_states[self.layer]
        there = coded["attention_mask"].cpu().bool()
        return hidden.float().cpu(), there, there & ~special


def greedy_f1(
    said: Tensor, said_there: Tensor, said_counts: Tensor, right: Tensor, right_there: Tensor, right_counts: Tensor
) -> Tensor:
    """Return F1 [texts] of the greedy matching of token vectors by cosine.

    Args:
        said: [texts, tokens, size], of the answers.
        said_there: [texts, tokens], false for padding: matched by nothing.
        said_counts: [texts, tokens], true for tokens whose best match is averaged.
        right: the same of the references.
        right_there: the same.
        right_counts: the same.
    """
    cosines = functional.normalize(said, dim=-1) @ functional.normalize(right, dim=-1).transpose(1, 2)
    both = said_there.unsqueeze(2) & right_there.unsqueeze(1)
    cosines = cosines.masked_fill(~both, -1.0)
    precision = _averaged(cosines.amax(dim=2), said_counts)
    recall = _averaged(cosines.amax(dim=1), right_counts)
    return torch.nan_to_num(2 * precision * recall / (precision + recall))


def _averaged(best: Tensor, counts: Tensor) -> Tensor:
    return (best * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
