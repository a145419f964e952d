"""Tables, plots and reports for people."""
