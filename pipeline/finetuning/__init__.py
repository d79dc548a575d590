"""Fine-tuning plans: train the last blocks of a network, or all of it, on the manifest's images, and predict.

Contract: a plan ends in the same Predictions as a head, and an interrupted training resumes to the same bytes.
"""
