"""From a path to a project that runs: what is there, what is wrong with it, and what params.yaml should say."""
