"""One step of training, validation or test, with its statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...stats import LearningStat, LearningStats


class Assistant:
    """Runs batches through a network of direct training and keeps count.

    net: takes the input; with lam gives (output, loss of its own, ...), with count_log
    (..., count) as well. error: (output, target) to a loss. classifier: output to predictions,
    for the accuracy. lam: weight of the network's own loss.

    >>> net = nn.Linear(4, 2)
    >>> assistant = Assistant(net, torch.nn.functional.cross_entropy,
    ...     torch.optim.SGD(net.parameters(), lr=0.1), LearningStats(), lambda y: y.argmax(1))
    >>> assistant.train(torch.rand(3, 4), torch.tensor([0, 1, 1])).shape
    torch.Size([3, 2])
    >>> assistant.stats.training.num_samples
    3
    """

    def __init__(
        self,
        net: nn.Module,
        error: Callable[[Any, Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        stats: LearningStats | None = None,
        classifier: Callable[[Any], Tensor] | None = None,
        count_log: bool = False,
        lam: float | None = None,
    ) -> None:
        self.net, self.error, self.optimizer = net, error, optimizer
        self.stats, self.classifier = stats, classifier
        self.count_log, self.lam = count_log, lam

    def reduce_lr(self, factor: float = 10 / 3) -> None:
        """Divides the learning rate by factor, and says so."""
        for group in self.optimizer.param_groups:
            print(f"\nLearning rate {group['lr']:g} -> {group['lr'] / factor:g}")
            group["lr"] /= factor

    def train(self, input: Tensor, target: Tensor) -> Any:
        """One optimizer step; the output, with count_log (output, count)."""
        self.net.train()
        stat = None if self.stats is None else self.stats.training
        loss, given = self._run(input, target, stat)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return given

    def test(self, input: Tensor, target: Tensor) -> Any:
        """The output for a batch of the test part, without gradients."""
        return self._evaluate(input, target, None if self.stats is None else self.stats.testing)

    def valid(self, input: Tensor, target: Tensor) -> Any:
        """The output for a batch of the validation part, without gradients."""
        return self._evaluate(input, target, None if self.stats is None else self.stats.validation)

    @torch.no_grad()
    def _evaluate(self, input: Tensor, target: Tensor, stat: LearningStat | None) -> Any:
        self.net.eval()
        return self._run(input, target, stat)[1]

    def _run(self, input: Tensor, target: Tensor, stat: LearningStat | None) -> tuple[Tensor, Any]:
        device = next(self.net.parameters(), input).device
        input, target = input.to(device), target.to(device)
        parts = self.net(input)
        given: tuple[Any, ...] = parts if self.count_log or self.lam is not None else (parts,)
        output = given[0]
        loss = self.error(output, target)
        if stat is not None:
            stat.num_samples += len(input)
            stat.loss_sum += loss.item() * len(input)
            if self.classifier is not None:
                stat.correct_samples += int((self.classifier(output) == target).sum())
        if self.lam is not None:
            loss = loss + self.lam * given[1]
        return loss, (output, given[-1]) if self.count_log else output
