#!/usr/bin/python3
"""Trains the small image encoder of the examples and writes digit_encoder.onnx.

    apt-get install --no-install-recommends \\
        python3-torch python3-numpy python3-onnx python3-opencv libopenblas0
    /usr/bin/python3 train_image_encoder.py

Reads   digits.png, digits_labels.txt
Writes  digit_encoder.onnx            3 x 8 x 8 image in, 64 numbers out
        digit_encoder_reference.txt   torch's own embeddings of a few digits, for the tests

Trains on the first 915 digits only. The other 882 are looked at once, after training, to measure.
The same seed gives the same files on the same machine: one thread, no data loader, CPU.
"""
import argparse
import os
import pathlib
import sys
import time

# The order of additions, and with it the last bits of the result, depends on the number of threads.
# Read when the libraries load, so before the imports.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = 50
# Where the sequence of labels starts again: one filled-in form ends, the next begins.
FORMS = [0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667, 1797]
TRAINING = 915  # the first seven forms
DIMENSION = 64
REFERENCE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 915, 916, 917, 918, 919, 1796]
LUMA = torch.tensor([0.299, 0.587, 0.114])  # red, green, blue; the sum is 1

EPOCHS = 80
BATCH = 32
PEAK_RATE = 4e-3
LABEL_SMOOTHING = 0.1
SHARPNESS = 16.0  # multiplies the cosines before the softmax


def read_digits():
    """The tiles as the examples see them: uint8, index x row x column."""
    labels = np.loadtxt(HERE / "digits_labels.txt", dtype=int)
    sheet = cv2.imread(str(HERE / "digits.png"), cv2.IMREAD_GRAYSCALE)
    tiles = sheet.reshape(-1, 8, COLUMNS, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    return np.ascontiguousarray(tiles[: len(labels)]), torch.from_numpy(labels)


def distort(images):
    """Random turns, scales, slants and shifts, made at 24 x 24 and averaged down to 8 x 8."""
    count = len(images)

    def spread(limit):
        return (torch.rand(count) * 2 - 1) * limit

    angle, slant = spread(0.26), spread(0.3)
    wide, high = 1 + spread(0.2), 1 + spread(0.15)
    cosine, sine = angle.cos(), angle.sin()
    maps = torch.stack(
        [
            torch.stack([cosine * wide, slant - sine * high, spread(0.2)], 1),
            torch.stack([sine * wide, cosine * high, spread(0.2)], 1),
        ],
        1,
    )
    large = F.interpolate(images, scale_factor=3, mode="bicubic", align_corners=False)
    grid = F.affine_grid(maps, list(large.shape), align_corners=False)
    return F.avg_pool2d(F.grid_sample(large, grid, align_corners=False), 3).clamp(0, 1)


def make_network():
    def convolution(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *convolution(1, 32),
        *convolution(32, 64),
        nn.MaxPool2d(2),
        *convolution(64, 64),
        *convolution(64, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(256, DIMENSION),
    )


def train(images, labels):
    """Softmax over the cosines to one direction per digit; only the network is kept."""
    network = make_network()
    directions = nn.Parameter(torch.randn(10, DIMENSION))
    batches = len(images) // BATCH
    optimizer = torch.optim.AdamW([*network.parameters(), directions], lr=PEAK_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=EPOCHS * batches)
    network.train()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images))[: batches * BATCH].split(BATCH):
            embedding = F.normalize(network(distort(images[chosen])))
            cosines = embedding @ F.normalize(directions).T
            loss = F.cross_entropy(SHARPNESS * cosines, labels[chosen], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def take_colour(network):
    """The same network for red, green and blue: the grey value is folded into the first convolution."""
    first = nn.Conv2d(3, network[0].out_channels, 3, padding=1, bias=False)
    first.weight.data = network[0].weight.data * LUMA.view(1, 3, 1, 1)
    return nn.Sequential(first, *list(network)[1:]).eval()


def nearest_correct(queries, entries, query_labels, entry_labels):
    """How many queries have the label of their nearest entry (smallest Euclidean distance)."""
    distance = (queries**2).sum(1)[:, None] - 2 * queries @ entries.T + (entries**2).sum(1)[None]
    return int((entry_labels[distance.argmin(1)] == query_labels).sum())


def embed(network, images):
    with torch.no_grad():
        return F.normalize(network(images))


def cross_validate(images, labels, seed):
    """Each form of the training half is embedded by a network trained on the other six."""
    correct = 0
    for number, (begin, end) in enumerate(zip(FORMS, FORMS[1:8])):
        torch.manual_seed(seed + number)
        inside = torch.zeros(TRAINING, dtype=torch.bool)
        inside[begin:end] = True
        network = train(images[:TRAINING][~inside], labels[:TRAINING][~inside])
        embedding = embed(network, images[:TRAINING])
        correct += nearest_correct(
            embedding[inside], embedding[~inside], labels[:TRAINING][inside], labels[:TRAINING][~inside]
        )
    print(f"leave one form out, training half: {correct}/{TRAINING} = {100 * correct / TRAINING:.2f} %")


def forward_in_opencv(path, tiles, batch):
    """The examples' own path: each tile as a colour image, through OpenCV DNN, then normalised."""
    network = cv2.dnn.readNetFromONNX(str(path))
    outputs = []
    for begin in range(0, len(tiles), batch):
        images = [cv2.cvtColor(tile, cv2.COLOR_GRAY2BGR) for tile in tiles[begin : begin + batch]]
        network.setInput(cv2.dnn.blobFromImages(images, 1 / 255, (8, 8), swapRB=True, crop=False))
        outputs.append(network.forward().copy())
    return F.normalize(torch.from_numpy(np.concatenate(outputs)))


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--output", type=pathlib.Path, default=HERE, help="folder for the files written")
    options.add_argument("--cross-validate", action="store_true", help="on the training half; writes nothing")
    arguments = options.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tiles, labels = read_digits()
    images = torch.from_numpy(tiles).float().unsqueeze(1) / 255
    if arguments.cross_validate:
        return cross_validate(images, labels, arguments.seed)

    started = time.monotonic()
    torch.manual_seed(arguments.seed)
    network = take_colour(train(images[:TRAINING], labels[:TRAINING]))
    seconds = time.monotonic() - started

    colour = images.expand(-1, 3, -1, -1).contiguous()
    path = arguments.output / "digit_encoder.onnx"
    torch.onnx.export(
        network,
        colour[:1],
        str(path),
        opset_version=11,
        input_names=["image"],
        output_names=["embedding"],
        dynamic_axes={"image": {0: "batch"}, "embedding": {0: "batch"}},
    )
    model = onnx.load(str(path))
    onnx.checker.check_model(model)

    embedding = embed(network, colour)
    worst = 0.0
    for batch in (1, 7, 64):
        difference = (forward_in_opencv(path, tiles, batch) - embedding).abs().max().item()
        worst = max(worst, difference)
        print(f"OpenCV {cv2.__version__} against torch, batch {batch}: differs by at most {difference:.1e}")

    with open(arguments.output / "digit_encoder_reference.txt", "w") as file:
        for index in REFERENCE:
            file.write(" ".join([str(index), *(f"{value:.8f}" for value in embedding[index].tolist())]) + "\n")

    def report(name, vectors):
        held_out = len(labels) - TRAINING
        correct = nearest_correct(vectors[TRAINING:], vectors[:TRAINING], labels[TRAINING:], labels[:TRAINING])
        print(f"{name}: {correct}/{held_out} = {100 * correct / held_out:.2f} %")
        return correct / held_out

    raw = report("raw pixels, held-out half", torch.from_numpy(tiles).double().flatten(1))
    accuracy = report("encoder (torch), held-out half", embedding)
    through_opencv = report("encoder (OpenCV), held-out half", forward_in_opencv(path, tiles, 1))
    print(f"seed {arguments.seed}, {seconds:.0f} s of training, {path.stat().st_size:,} bytes, "
          f"opset {model.opset_import[0].version}, IR version {model.ir_version}, {len(model.graph.node)} nodes: "
          f"{' '.join(node.op_type for node in model.graph.node)}")
    print(f"torch {torch.__version__}, numpy {np.__version__}, onnx {onnx.__version__}")
    if worst > 1e-4 or min(accuracy, through_opencv) < max(raw, 0.985):
        sys.exit("the encoder is not good enough, or OpenCV does not agree with torch")


if __name__ == "__main__":
    main()
