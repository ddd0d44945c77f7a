"""Parts that know nothing of sound: files written whole, addresses, text, checks, reading ahead in threads."""
