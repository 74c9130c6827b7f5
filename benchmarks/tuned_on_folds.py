"""A sentence-transformers model tuned on each fold of `shopping_folds.py` and evaluated on its test queries.

The stock trainer reads the dataset's columns as they stand. Folds of the same queries with other negatives are told
apart by `--data`; what comes out is put together by `pooled_folds.py`.

    python benchmarks/tuned_on_folds.py --model all-MiniLM-L6-v2 --data FOLDS --out FOLDER [--epochs 0.5]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from datasets import load_dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import BatchSamplers

from recfound_model.evaluation import evaluate


def tune(model: SentenceTransformer, data: Path, arguments: argparse.Namespace) -> None:
    """Train `model` on the queries of a fold."""
    rows = load_dataset(str(data), "query2item", split="train").select_columns(["anchor", "positive", "negative"])
    with tempfile.TemporaryDirectory() as scratch:
        settings = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            num_train_epochs=arguments.epochs,
            per_device_train_batch_size=arguments.batch,
            learning_rate=arguments.learning_rate,
            warmup_steps=0.1,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            bf16=True,
            use_cpu=True,
            seed=arguments.seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        loss = MultipleNegativesRankingLoss(model)
        SentenceTransformerTrainer(model=model, args=settings, train_dataset=rows, loss=loss).train()


def main() -> None:
    """Print a line a fold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="what shopping_folds.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=1, help="0 evaluates the model as it is")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for fold in sorted(arguments.data.glob("fold-?")):
        out, started = arguments.out / fold.name, time.monotonic()
        # On a CPU the other implementations are slower backwards.
        model = SentenceTransformer(arguments.model, model_kwargs={"attn_implementation": "eager"})
        model.max_seq_length = arguments.max_length
        if arguments.epochs:
            tune(model, fold, arguments)
        tuned = time.monotonic() - started
        with tempfile.TemporaryDirectory() as scratch:
            model.save(scratch, create_model_card=False)
            found = evaluate(scratch, str(fold), out=out, tasks=["query2item"])
        value = found.results["query2item"].summary["ndcg@20"].value
        print(json.dumps({"fold": fold.name, "ndcg@20": value, "train_s": round(tuned, 1)}), flush=True)


if __name__ == "__main__":
    main()
