"""An embedded world of sums: whoever can add knows whether a response is right."""
