"""Pretrained image encoders from local files; nothing is downloaded."""
