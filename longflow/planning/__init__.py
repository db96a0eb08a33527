"""From a fingerprint to plans: every choice with the numbers that led to it."""
