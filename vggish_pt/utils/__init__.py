"""Utilities that do not depend on audio: files written whole, addresses, text, checks, reading ahead in threads."""
