"""The part of a network that is trained: the unfrozen blocks, pooling and a new classifier."""

import torch
from torch import Tensor, nn

from pipeline.core.sections import Plan
from pipeline.networks.network import average


class Trainable(nn.Module):
    """(B, C, h, w) -> logits (B, K).

    Args:
        blocks: the unfrozen blocks, changed in place.
        width: channels of the last block's output, D.
        classes: K.
        plan: dropout, gradual unfreezing and batch norm.

    """

    def __init__(self, blocks: nn.Sequential, width: int, classes: int, plan: Plan) -> None:
        super().__init__()
        self.blocks, self.classifier, self.plan = blocks, nn.Linear(width, classes), plan
        # With zero weights, the first steps change the classifier and not the pre-trained features.
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, activations: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Return the logits; the pooled features are multiplied by `dropout` (B, D) of zeros and 1 / (1 - p)."""
        pooled = average(self.blocks(activations))
        logits: Tensor = self.classifier(pooled if dropout is None else pooled * dropout)
        return logits

    def dropout(self, rows: int, seed: int) -> Tensor | None:
        """Draw a dropout mask (rows, D), or return None if the plan has no dropout.

        It is drawn for a whole batch, so that it does not depend on how many processes share the batch.
        """
        if not self.plan.dropout:
            return None
        generator = torch.Generator().manual_seed(seed)
        kept = torch.rand(rows, self.classifier.in_features, generator=generator) >= self.plan.dropout
        return kept / (1 - self.plan.dropout)

    def prepare(self, epoch: int) -> None:
        """Unfreeze the last blocks for an epoch, counted from 0, and keep the others frozen.

        One more block every `thaw_epochs`, only the classifier at first (Howard & Ruder 2018, section 3.3).
        """
        self.train()
        thawed = epoch // self.plan.thaw_epochs if self.plan.thaw_epochs else len(self.blocks)
        for depth, block in enumerate(reversed(list(self.blocks))):
            block.requires_grad_(depth < thawed)
            block.train(depth < thawed)
        if self.plan.batch_norm == "frozen":  # batches are small, so the pre-trained statistics are better
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # the common base has no public name
                    module.eval()
