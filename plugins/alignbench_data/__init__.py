"""Preferences, demonstrations and prompts from any file or hub id."""
