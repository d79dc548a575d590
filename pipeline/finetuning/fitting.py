"""The training loop: train, score validation, keep the best epoch, predict."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.core.cost import Clock
from pipeline.core.errors import InputError, RefusedError, StateError
from pipeline.core.sections import Plan
from pipeline.evaluation.scoring import metrics
from pipeline.finetuning import start
from pipeline.finetuning.checkpoints import Checkpoint
from pipeline.finetuning.examples import Examples
from pipeline.finetuning.network import Trainable
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import Epoch, FinetuningResult, Task
from pipeline.finetuning.training import Trainer, copy_of_state
from pipeline.networks.network import Backbone

SINGLE_PROCESS = Processes()


def run(
    task: Task,
    examples: Examples,
    backbone: Backbone,
    plan: Plan,
    metric: str,
    seed: int,
    checkpoint: Checkpoint,
    processes: Processes = SINGLE_PROCESS,
) -> FinetuningResult:
    """Train a plan; the validation metric chooses the epoch, and test rows are only predicted at the end.

    The unfrozen blocks of the backbone are changed in place. The checkpoint keeps the state after each epoch; training
    resumes from a state that is there.

    Raises:
        InputError: if the plan does not fit the backbone, the data or the number of processes.
        RefusedError: if the loss stops being a number.

    """
    clock = Clock()
    trainer = trainer_of(task, examples, backbone, plan, metric, seed, processes)
    epochs = _train(trainer, checkpoint, metric, clock)
    val, test = trainer.predict(task.val), trainer.predict(task.test)
    cost = clock.read()
    trained = len(epochs) * (trainer.batches * plan.batch_size + len(task.val))
    cost.images = trained + len(task.val) + len(task.test)
    state = {
        **{f"backbone.{name}": value for name, value in backbone.state_dict().items()},
        **{f"classifier.{name}": value for name, value in trainer.network.classifier.state_dict().items()},
    }
    return FinetuningResult(state, val, test, epochs, cost)


def trainer_of(
    task: Task, examples: Examples, backbone: Backbone, plan: Plan, metric: str, seed: int, processes: Processes
) -> Trainer:
    """Return a trainer that has not taken a step yet; errors as `run`."""
    if problems := [*_problems(task, plan, processes)]:
        raise (RefusedError if processes.number == 1 else InputError)(*problems)
    torch.manual_seed(seed)
    _, blocks = backbone.split_before(plan.unfreeze_from)
    backbone.requires_grad_(False)
    network = Trainable(blocks, _width(blocks, examples, task), task.classes, plan)
    if examples.embedded is not None:
        classifier = start.logistic(examples.embedded, task, plan, metric)
        with torch.no_grad():
            network.classifier.weight.copy_(torch.from_numpy(classifier.weight))
            network.classifier.bias.copy_(torch.from_numpy(classifier.bias))
    return Trainer(network, examples, task, plan, seed, processes)


def _problems(task: Task, plan: Plan, processes: Processes) -> Sequence[str]:
    found = []
    if len(task.train) < plan.batch_size:
        got, most = plan.batch_size, len(task.train)
        found.append(f"params.yaml: plans: batch_size: got {got}, expected at most the {most} training images")
    if processes.number > plan.batch_size:
        found.append(
            f"torchrun: got {processes.number} processes, expected at most batch_size, which is {plan.batch_size}"
        )
    if processes.number > 1 and plan.batch_norm == "trained":
        found.append("params.yaml: plans: batch_norm: got 'trained', expected 'frozen' with several processes")
    return found


def _width(blocks: nn.Module, examples: Examples, task: Task) -> int:
    """Return the number of channels of the last block's output."""
    with torch.inference_mode():
        return int(blocks(examples.batch(task.train[:1], np.zeros(1, np.int64))).shape[1])


def _train(trainer: Trainer, checkpoint: Checkpoint, metric: str, clock: Clock) -> list[Epoch]:
    """Run the remaining epochs, load the state of the best one into the network, and return all epochs."""
    task, plan = trainer.task, trainer.plan
    epochs, best = trainer.resume(checkpoint, clock)
    total, hidden = plan.epochs * trainer.batches, None if trainer.processes.first else True
    with tqdm(
        total=total, initial=len(epochs) * trainer.batches, desc="fine-tune", unit="batch", leave=None, disable=hidden
    ) as bar:
        while len(epochs) < plan.epochs and len(epochs) - best_epoch(epochs) < plan.patience:
            losses = []
            try:
                for loss in trainer.epoch(len(epochs)):
                    losses.append(loss)
                    so_far = f"{epochs[best_epoch(epochs) - 1].validation:.3f}" if epochs else "-"
                    bar.set_postfix(loss=f"{loss:.3f}", validation=so_far, refresh=False)
                    bar.update()
                predicted = trainer.predict(task.val)
                trainer.require_finite(float(predicted.sum()), len(epochs), trainer.batches - 1)
            except StateError as error:
                raise StateError(*error.problems, *_last_state(checkpoint, epochs)) from error
            decided = predicted.argmax(axis=1)
            score = metrics.value(metric, task.targets[task.val], decided, task.classes)
            epochs.append(Epoch(float(np.mean(losses)), score))
            if best_epoch(epochs) == len(epochs):
                best = copy_of_state(trainer.scored_network)
            if trainer.processes.first:
                trainer.save(checkpoint, epochs, best, clock)
    _load(trainer, best)
    return epochs


def _last_state(checkpoint: Checkpoint, epochs: Sequence[Epoch]) -> list[str]:
    return [f"{checkpoint.folder}: holds the state after epoch {len(epochs)}, the last good one"] if epochs else []


def _load(trainer: Trainer, state: Mapping[str, Tensor]) -> None:
    trainer.network.load_state_dict(state)
    trainer.scored_network.load_state_dict(state)


def best_epoch(epochs: Sequence[Epoch]) -> int:
    """Return the number, from 1, of the first epoch with the highest validation score; 0 without epochs."""
    scores = [epoch.validation for epoch in epochs]
    return scores.index(max(scores)) + 1 if scores else 0
