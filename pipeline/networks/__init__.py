"""Pre-trained networks: catalogue, layers and pooling, runtimes, and the frozen pass; MLP heads.

Contract: with `pipeline/finetuning` the only room that imports torch.
"""
