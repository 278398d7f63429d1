"""The textbook's side: PIL images, transforms per sample, a DataLoader, and a loop in float32."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks.measure import synchronize
from torchloom.datasets.tensors import open_tensors


class PILImages(torchvision.datasets.VisionDataset):  # type: ignore[misc]
    """Images as PIL pictures, transformed one by one: what torchvision.datasets.MNIST and CIFAR10 do."""

    def __init__(self, folder: Path, count: int | None, transform: Callable[[Image.Image], Tensor]) -> None:
        super().__init__(folder, transform=transform)
        arrays = open_tensors(folder / "train.safetensors").arrays
        self.images = arrays["images"][:count].numpy().squeeze()  # type: ignore[union-attr]
        self.labels: list[int] = arrays["labels"][:count].tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def open_loader(
    folder: Path, batch_size: int, count: int | None, augment: bool, workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    steps = [transforms.ToTensor(), transforms.Normalize(info["mean"], info["std"])]
    if augment:
        steps = [transforms.RandomCrop(info["shape"][1], padding=4), transforms.RandomHorizontalFlip(), *steps]
    images = PILImages(folder, count, transforms.Compose(steps))
    return DataLoader(images, batch_size=batch_size, shuffle=True, num_workers=workers)


def data_path(device: str) -> Callable[..., float]:
    """Measures images per second of one pass over the first `count` images, augmented and normalised."""
    opened = functools.cache(open_loader)

    def measure(folder: Path, batch_size: int, count: int | None, workers: int) -> float:
        loader = opened(folder, batch_size, count, True, workers)
        seen, started = 0, time.perf_counter()
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            seen += len(labels)
        synchronize(device)
        return seen / (time.perf_counter() - started)

    return measure


class RowLSTM(nn.Module):
    """Reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 128, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        outputs, _ = self.lstm(images.squeeze(1))
        logits: Tensor = self.head(outputs[:, -1])
        return logits


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))


def lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def resnet() -> nn.Module:
    """torchvision's ResNet-18 with the stem for small images."""
    network: nn.Module = torchvision.models.resnet18(num_classes=10)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return network


NETWORKS = {"mlp": mlp, "lenet": lenet, "row_rnn": RowLSTM, "resnet": resnet}


def training(device: str) -> Callable[..., float]:
    """Measures images per second of an epoch of training on the first `count` images."""

    @functools.cache
    def prepared(network: str, optimizer: str) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = NETWORKS[network]().to(device)
        named: dict[str, Any] = json.loads(optimizer)
        return model, getattr(torch.optim, named.pop("name"))(model.parameters(), **named)

    opened = functools.cache(open_loader)

    def measure(folder: Path, network: str, optimizer: dict[str, Any], batch_size: int, count: int) -> float:
        loader = opened(folder, batch_size, count, network == "resnet")
        started = time.perf_counter()
        *_, seen = train_epoch(*prepared(network, json.dumps(optimizer)), loader, device)
        return seen / (time.perf_counter() - started)

    return measure


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: Any, device: str
) -> tuple[float, float, int]:
    """One epoch as textbooks write it: mean loss, accuracy, number of images."""
    criterion = nn.CrossEntropyLoss()
    model.train()
    total, correct, seen = 0.0, 0.0, 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        correct += (outputs.argmax(1) == labels).sum().item()
        seen += len(labels)
    return total / seen, correct / seen, seen
