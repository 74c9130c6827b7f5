"""Training: recipes, streams of samples, the loop and its checkpoints."""
