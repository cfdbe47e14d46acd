"""The chunked head: the only place where hidden states become logits."""
