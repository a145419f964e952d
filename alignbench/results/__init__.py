"""Results: what a run leaves behind, and the table that is derived from it. Imports no plugin and no torch."""
