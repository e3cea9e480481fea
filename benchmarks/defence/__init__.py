"""Prompt-tuned models under attack, without guard and with it, and input filters of the literature beside it."""
