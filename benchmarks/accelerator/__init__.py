"""Correctness and speed on an accelerator, part by part: see `__main__`."""
