"""The page in a browser: the simulator, ranking by people, results to look at."""
