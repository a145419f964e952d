"""Ranking by people: projects of prompts and responses, who ranked them how, and how far people agree."""
