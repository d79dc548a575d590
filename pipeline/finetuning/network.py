"""What trains: the unfrozen blocks, pooling and a new classifier."""

import torch
from torch import Tensor, nn

from pipeline.core.sections import Plan
from pipeline.networks.network import average


class Trainable(nn.Module):
    """(B, C, h, w) -> logits (B, K).

    Args:
        blocks: the unfrozen ones, changed in place.
        width: channels of the last block's output, D.
        classes: K.
        plan: what of it is still.

    """

    def __init__(self, blocks: nn.Sequential, width: int, classes: int, plan: Plan) -> None:
        super().__init__()
        self.blocks, self.classifier, self.plan = blocks, nn.Linear(width, classes), plan
        # Zero logits at first: the first steps then move the classifier, not the pre-trained features.
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, activations: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Return the logits; the pooled features are multiplied by `dropout` (B, D), zeros and 1 / (1 - p)."""
        pooled = average(self.blocks(activations))
        logits: Tensor = self.classifier(pooled if dropout is None else pooled * dropout)
        return logits

    def dropout(self, rows: int, seed: int) -> Tensor | None:
        """Draw a mask (rows, D), or none if the plan drops nothing.

        It is drawn for a whole batch at a time, so that it does not depend on how many processes share the batch.
        """
        if not self.plan.dropout:
            return None
        generator = torch.Generator().manual_seed(seed)
        kept = torch.rand(rows, self.classifier.in_features, generator=generator) >= self.plan.dropout
        return kept / (1 - self.plan.dropout)

    def prepare(self, epoch: int) -> None:
        """Make ready for the training steps of an epoch, counted from 0: thaw the last blocks, keep the others still.

        One more block every `thaw_epochs`, the classifier alone at first (Howard & Ruder 2018, section 3.3).
        """
        self.train()
        thawed = epoch // self.plan.thaw_epochs if self.plan.thaw_epochs else len(self.blocks)
        for depth, block in enumerate(reversed(list(self.blocks))):
            block.requires_grad_(depth < thawed)
            block.train(depth < thawed)
        if self.plan.batch_norm == "frozen":  # batches are small: the pre-trained statistics are the better ones
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # the common base has no public name
                    module.eval()
