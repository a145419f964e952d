"""Helpfulness: rewards, plain facts, and win rates against the SFT model."""
