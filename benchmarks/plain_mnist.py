"""A script of the textbook kind: MNIST, a network 784-512-10, Adam, until the test accuracy is there.

`python -m benchmarks.plain_mnist ROOT --goal 0.983`, where ROOT/MNIST/raw holds the four files.
"""

import argparse
import json
import time

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--goal", type=float, default=0.983)
    parser.add_argument("--epochs", type=int, default=40, help="at most so many")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    train_loader = DataLoader(datasets.MNIST(options.root, True, transform), batch_size=64, shuffle=True)
    test_loader = DataLoader(datasets.MNIST(options.root, False, transform), batch_size=1000)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 10)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    criterion = nn.CrossEntropyLoss()
    started, epoch, accuracy = time.perf_counter(), 0, 0.0
    while accuracy < options.goal and epoch < options.epochs:
        epoch += 1
        model.train()
        for images, labels in train_loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
        accuracy = evaluate(model, test_loader, device)
    print(json.dumps({"accuracy": accuracy, "epochs": epoch, "training_seconds": time.perf_counter() - started}))


@torch.no_grad()
def evaluate(model: nn.Module, test_loader: DataLoader[tuple[torch.Tensor, int]], device: torch.device) -> float:
    model.eval()
    correct, total = 0, 0
    for images, labels in test_loader:
        predicted = model(images.to(device)).argmax(1)
        correct += int((predicted == labels.to(device)).sum())
        total += len(labels)
    return correct / total


if __name__ == "__main__":
    main()
