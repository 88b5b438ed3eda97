"""What the training scripts share: the digits, the alphabet, and the check of an exported file."""
import os
import pathlib
import sys

# The order of additions, and with it the last bits of the result, depends on the number of threads.
# Read when the libraries load, so before the imports; a script imports this module first.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = 50
TRAINING = 915  # the first seven forms, see README.md
SIZE = 32  # side of the pictures that the networks read and draw
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LUMA = torch.tensor([0.299, 0.587, 0.114])  # red, green, blue; the sum is 1

# The place in this string is the number of a character. Capital letters count as small ones.
ALPHABET = "\n abcdefghijklmnopqrstuvwxyz0123456789+-=?!.,:'"


def single_threaded():
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.use_deterministic_algorithms(True)


def read_digits():
    """The tiles as the examples see them: uint8, index x row x column."""
    labels = np.loadtxt(HERE / "digits_labels.txt", dtype=int)
    sheet = cv2.imread(str(HERE / "digits.png"), cv2.IMREAD_GRAYSCALE)
    tiles = sheet.reshape(-1, 8, COLUMNS, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    return np.ascontiguousarray(tiles[: len(labels)]), torch.from_numpy(labels)


def spread(count, limit):
    return (torch.rand(count) * 2 - 1) * limit


def distort(images, strength=1.0):
    """Random turns, scales, slants and shifts."""
    count = len(images)
    angle, slant = spread(count, 0.26 * strength), spread(count, 0.3 * strength)
    wide, high = 1 + spread(count, 0.2 * strength), 1 + spread(count, 0.15 * strength)
    cosine, sine = angle.cos(), angle.sin()
    maps = torch.stack(
        [
            torch.stack([cosine * wide, slant - sine * high, spread(count, 0.2 * strength)], 1),
            torch.stack([sine * wide, cosine * high, spread(count, 0.2 * strength)], 1),
        ],
        1,
    )
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def distort_small(images):
    """The same for 8 x 8 images: made at 24 x 24 and averaged down."""
    large = F.interpolate(images, scale_factor=3, mode="bicubic", align_corners=False)
    return F.avg_pool2d(distort(large), 3).clamp(0, 1)


def as_seen(images):
    """8 x 8 scans after the enlargement to SIZE and the averaging with which the reading networks begin."""
    large = F.interpolate(images, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return F.avg_pool2d(large, SIZE // 8)


def small_convolutions(channels):
    """Reads 1 x 8 x 8: four 3 x 3 convolutions, halved after each pair, flattened."""
    layers, inputs = [], 1
    for number, outputs in enumerate(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] * (number % 2)
        inputs = outputs
    return layers + [nn.Flatten()]


def take_colour(network):
    """The same network for 3 x SIZE x SIZE: averages first, and the first convolution takes the grey value."""
    first = nn.Conv2d(3, network[0].out_channels, 3, padding=1, bias=False)
    first.weight.data = network[0].weight.data * LUMA.view(1, 3, 1, 1)
    return nn.Sequential(nn.AvgPool2d(SIZE // 8), first, *list(network)[1:]).eval()


def follow(average, network, step, decay):
    """Keeps a running average of the weights, and of the statistics of normalisation."""
    decay = min(decay, (step + 1) / (step + 10))
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), network.state_dict().values()):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)


def blob(pictures):
    """What the image engines do: colour images of any size to N x 3 x SIZE x SIZE, red first, 0 to 1."""
    images = [cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) for picture in pictures]
    return cv2.dnn.blobFromImages(images, 1 / 255, (SIZE, SIZE), swapRB=True, crop=False)


def fold(text):
    return "".join(character for character in text.lower() if character in ALPHABET)


def one_hot(texts, length):
    """N x characters x 1 x length; columns after the end of the text are zero."""
    result = np.zeros((len(texts), len(ALPHABET), 1, length), np.float32)
    for row, text in enumerate(texts):
        assert len(text) <= length, text
        for column, character in enumerate(text.lower()):
            result[row, ALPHABET.index(character), 0, column] = 1
    return result


def fold_identities(model):
    """torch names equal weights once and writes Identity nodes for the others; OpenCV wants plain weights."""
    weights = {weight.name: weight for weight in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Identity" and node.input[0] in weights]:
        copy = model.graph.initializer.add()
        copy.CopyFrom(weights[node.input[0]])
        copy.name = node.output[0]
        model.graph.node.remove(node)


def export(network, example, path, inputs, output, dynamic=True, opset=11):
    torch.onnx.export(
        network,
        example,
        str(path),
        opset_version=opset,
        input_names=inputs,
        output_names=[output],
        dynamic_axes={name: {0: "batch"} for name in [*inputs, output]} if dynamic else None,
    )
    model = onnx.load(str(path))
    fold_identities(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    nodes = [node.op_type for node in model.graph.node]
    print(f"{path.name}: {path.stat().st_size:,} bytes, opset {model.opset_import[0].version}, IR version "
          f"{model.ir_version}, {len(nodes)} nodes: {' '.join(sorted(set(nodes)))}")


def forward(net, **inputs):
    """One call of OpenCV; the result is a copy, because forward() may return its own memory."""
    for name, value in inputs.items():
        net.setInput(np.ascontiguousarray(value, np.float32), name)
    return net.forward().copy()


def compare(name, ours, theirs, tolerance):
    difference = float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())
    print(f"OpenCV {cv2.__version__} against torch, {name}: differs by at most {difference:.1e}")
    if not difference <= tolerance:
        sys.exit(f"more than {tolerance}")


def versions():
    return f"torch {torch.__version__}, numpy {np.__version__}, onnx {onnx.__version__}, OpenCV {cv2.__version__}"
