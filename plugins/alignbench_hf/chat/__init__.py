"""From conversations to token ids and back: chat templates, what ends a turn, and what of a text is control."""
