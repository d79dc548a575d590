"""From finished runs to one answer: scores on the test split, the rule, all sentences, and the schema of verdict.json.

Contract: the only room that scores the test split; the best head and plan are chosen by validation scores.
"""
