"""Task sources, class splits, tokenised pools, and the few-shot episodes drawn from them."""
