"""Hydra ends here: composing a configuration, typing it, sweeps and tuning."""
