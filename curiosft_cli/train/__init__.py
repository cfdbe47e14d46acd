"""Floor 4: tokens, packing, the chunked language-model head, optimizer, teacher, exact resume."""
