"""Results on three floors: disk (what a run leaves behind), compared (the table), shown (to people). No torch is imported."""
