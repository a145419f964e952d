"""Ready-made functions for `reward=function`."""
