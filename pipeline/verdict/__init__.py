"""From finished runs to one answer: judge, what the data checks add, all wording, and the schema of verdict.json.

Contract: the only room that looks at the test split; best head and plan are chosen by validation scores.
"""
