#!/usr/bin/python3
"""Trains a plain classifier of digits, the second opinion about the drawings.

Reads   digits.png, digits_labels.txt
Writes  classifier.onnx               3 x 32 x 32 image in, ten scores out
        classifier_reference.txt      torch's own scores of a few scans, for the tests

It shares nothing with the encoders but the scans: no text, other channels, another seed, trained on the first 915 digits only.
"""
import argparse
import pathlib
import sys
import time

from training import *

EPOCHS = 110
BATCH = 32
PEAK_RATE = 4e-3
LABEL_SMOOTHING = 0.05
REFERENCE_SCANS = [0, 1, 2, 3, 4, 915, 916, 1796]


def train(images, labels):
    network = nn.Sequential(*small_convolutions([24, 48, 48, 48]), nn.Dropout(0.3), nn.Linear(192, 10)).train()
    batches = len(images) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=EPOCHS * batches)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images))[: batches * BATCH].split(BATCH):
            scores = network(as_seen(distort_small(images[chosen])))
            loss = F.cross_entropy(scores, labels[chosen], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return take_colour(network.eval())


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seed", type=int, default=2)
    options.add_argument("--output", type=pathlib.Path, default=HERE, help="folder for the files written")
    arguments = options.parse_args()

    single_threaded()
    tiles, labels = read_digits()
    images = torch.from_numpy(tiles).float().unsqueeze(1) / 255
    started = time.process_time()
    torch.manual_seed(arguments.seed)
    network = train(images[:TRAINING], labels[:TRAINING])
    print(f"seed {arguments.seed}, {time.process_time() - started:.0f} s of training; {versions()}")

    path = arguments.output / "classifier.onnx"
    export(network, torch.zeros(1, 3, SIZE, SIZE), path, ["image"], "scores")
    net = cv2.dnn.readNetFromONNX(str(path))
    pictures = list(tiles)
    with torch.no_grad():
        expected = network(torch.from_numpy(blob(pictures))).numpy()
    for batch in (1, 7, 64):
        parts = [forward(net, image=blob(pictures[at : at + batch])) for at in range(0, len(pictures), batch)]
        scores = np.concatenate(parts)
        compare(f"batch {batch}", scores, expected, 1e-4)
    right = scores.argmax(1) == labels.numpy()
    print(f"held-out half: {right[TRAINING:].sum()}/{len(right) - TRAINING} = {100 * right[TRAINING:].mean():.2f} %; "
          f"training half: {100 * right[:TRAINING].mean():.2f} %")
    with open(arguments.output / "classifier_reference.txt", "w") as file:
        for index in REFERENCE_SCANS:
            file.write(" ".join([str(index), *(f"{value:.6f}" for value in expected[index])]) + "\n")
    if right[TRAINING:].mean() < 0.98:
        sys.exit("the classifier is not good enough")


if __name__ == "__main__":
    main()
