"""Whether a rewrite still is the post's problem: rules decide what they can, a verifier decides the rest."""
