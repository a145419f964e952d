"""Measures of how much a set of texts varies; the diversity family and its questionnaire both use them."""
