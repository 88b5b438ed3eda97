#!/usr/bin/python3
"""Trains an image encoder and a text encoder whose outputs lie in one space.

Reads   digits.png, digits_labels.txt
Writes  joint_image_encoder.onnx      3 x 32 x 32 image in, 64 numbers out
        joint_text_encoder.onnx       up to 64 characters in, 64 numbers out
        joint_reference.txt           torch's own outputs for a few scans and texts, for the tests

Trains on the first 915 digits only, each with random captions. The other 882 are looked at once, after training, to measure.
"""
import argparse
import copy
import pathlib
import random
import sys
import time

from training import *
from captions import HELD_OUT, HELD_OUT_NOTHING, LABELS, NOTHING, TEMPLATES, caption

DIMENSION = 64
LENGTH = 64
STEPS = 2400
IMAGES = 64
NOTHINGS = 24
PEAK_RATE = 4e-3
SHARPNESS = 6.0  # multiplies the cosines before the softmax
LABEL_SMOOTHING = 0.1
AVERAGING = 0.995  # of the weights, over the steps
UNRELATED = 0.1  # the cosine above which a text without a digit is pushed away from an image
REFERENCE_SCANS = [0, 1, 2, 3, 4, 915, 916, 1796]
REFERENCE_TEXTS = [*LABELS, "7", "A handwritten Three.", "draw 4, please", "a horse", HELD_OUT[3].format("six")]


class TextEncoder(nn.Module):
    """Four convolutions see nine characters at once; the strongest answer over the whole text counts."""

    def __init__(self, width=64):
        super().__init__()
        layers, inputs = [], len(ALPHABET)
        for _ in range(4):
            layers += [nn.Conv2d(inputs, width, (1, 3), padding=(0, 1), bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        self.convolutions = nn.Sequential(*layers, nn.MaxPool2d((1, LENGTH)), nn.Flatten())
        self.projection = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, DIMENSION))

    def forward(self, text):
        return self.projection(self.convolutions(text))


def train(images, labels, seed):
    source = random.Random(seed)
    reader = nn.Sequential(*small_convolutions([32, 64, 64, 64]), nn.Dropout(0.2), nn.Linear(256, DIMENSION))
    writer = TextEncoder()
    reader.train(), writer.train()
    both = nn.ModuleList([reader, writer])
    average = copy.deepcopy(both)
    optimizer = torch.optim.AdamW(both.parameters(), lr=PEAK_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS)
    order = torch.empty(0, dtype=torch.long)
    for step in range(STEPS):
        if len(order) < IMAGES:
            order = torch.randperm(len(images))
        chosen, order = order[:IMAGES], order[IMAGES:]
        digits = [*range(10)] * 4 + [source.randrange(10) for _ in range(IMAGES - 40)] + [NOTHING] * NOTHINGS
        texts = torch.from_numpy(one_hot([caption(source, digit, LENGTH) for digit in digits], LENGTH))
        digits = torch.tensor(digits)
        seen = F.normalize(reader(as_seen(distort_small(images[chosen]))))
        told = F.normalize(writer(texts))
        cosines = seen @ told.T
        # Every caption of the same digit is right for an image, so the right ones share the weight of the one.
        match = (labels[chosen][:, None] == digits[None]).float()

        def contrast(logits, match):
            target = match / match.sum(1, keepdim=True)
            target = (1 - LABEL_SMOOTHING) * target + LABEL_SMOOTHING / target.shape[1]
            return -(target * F.log_softmax(logits, 1)).sum(1).mean()

        named = (digits != NOTHING) & (match.sum(0) > 0)
        loss = contrast(SHARPNESS * cosines, match) + contrast(SHARPNESS * cosines.T[named], match.T[named])
        loss = loss + 20 * F.relu(cosines[:, digits == NOTHING] - UNRELATED).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        follow(average, both, step, AVERAGING)
        if step % 400 == 399:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    reader, writer = average.eval()
    return take_colour(reader), writer


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--output", type=pathlib.Path, default=HERE, help="folder for the files written")
    arguments = options.parse_args()

    single_threaded()
    tiles, labels = read_digits()
    images = torch.from_numpy(tiles).float().unsqueeze(1) / 255
    started = time.process_time()
    torch.manual_seed(arguments.seed)
    reader, writer = train(images[:TRAINING], labels[:TRAINING], arguments.seed)
    print(f"seed {arguments.seed}, {time.process_time() - started:.0f} s of training; {versions()}")

    image_path, text_path = arguments.output / "joint_image_encoder.onnx", arguments.output / "joint_text_encoder.onnx"
    export(reader, torch.zeros(1, 3, SIZE, SIZE), image_path, ["image"], "embedding")
    export(writer, torch.zeros(1, len(ALPHABET), 1, LENGTH), text_path, ["text"], "embedding")
    image_net, text_net = cv2.dnn.readNetFromONNX(str(image_path)), cv2.dnn.readNetFromONNX(str(text_path))

    def read(pictures, batch=64):
        parts = [forward(image_net, image=blob(pictures[at : at + batch])) for at in range(0, len(pictures), batch)]
        return F.normalize(torch.from_numpy(np.concatenate(parts))).numpy()

    def tell(texts, batch=50):
        parts = [forward(text_net, text=one_hot(texts[at : at + batch], LENGTH)) for at in range(0, len(texts), batch)]
        return F.normalize(torch.from_numpy(np.concatenate(parts))).numpy()

    held_out = [(template.format(name), digit) for template in HELD_OUT for digit, word in enumerate(WORDS) for name in (word, str(digit))]
    known = [(template.format(name), digit) for template in TEMPLATES for digit, word in enumerate(WORDS) for name in (word, str(digit))]
    with torch.no_grad():
        images_in_torch = F.normalize(reader(torch.from_numpy(blob(list(tiles))))).numpy()
        texts = [text for text, _ in held_out] + HELD_OUT_NOTHING + REFERENCE_TEXTS
        texts_in_torch = F.normalize(writer(torch.from_numpy(one_hot(texts, LENGTH)))).numpy()
    for batch in (1, 7, 64):
        compare(f"images, batch {batch}", read(list(tiles), batch), images_in_torch, 1e-4)
        compare(f"texts, batch {batch}", tell(texts, batch), texts_in_torch, 1e-4)

    places = tell(LABELS)
    cosines = read(list(tiles)) @ places.T
    right = cosines.argmax(1) == labels.numpy()
    print(f"zero-shot reading, held-out half: {right[TRAINING:].sum()}/{len(tiles) - TRAINING} = {100 * right[TRAINING:].mean():.2f} %; "
          f"training half: {100 * right[:TRAINING].mean():.2f} %")
    true = cosines[range(len(labels)), labels][TRAINING:]
    print(f"cosine to the right label, held-out half: mean {true.mean():.3f}, 1 % below {np.quantile(true, 0.01):.3f}; "
          f"between labels: at most {(places @ places.T - 2 * np.eye(10)).max():.3f}")

    def report(name, pairs):
        cosines = tell([text for text, _ in pairs]) @ places.T
        digits = np.array([digit for _, digit in pairs])
        good = cosines.argmax(1) == digits
        print(f"{name}: {good.sum()}/{len(good)} nearest to the right label, cosine at least {cosines[range(len(digits)), digits].min():.3f}")
        for (text, _), fine in zip(pairs, good):
            if not fine:
                print(f"   not: {text}")
        return good.mean()

    report("captions of training", known)
    captions_right = report("captions never seen", held_out)
    strays = (tell(HELD_OUT_NOTHING) @ places.T).max(1)
    print("texts without a digit, cosine to the nearest label: " + ", ".join(f"{text} {value:.2f}" for text, value in zip(HELD_OUT_NOTHING, strays)))

    with open(arguments.output / "joint_reference.txt", "w") as file:
        for index in REFERENCE_SCANS:
            file.write(" ".join(["scan", str(index), *(f"{value:.7f}" for value in images_in_torch[index])]) + "\n")
        for text, row in zip(REFERENCE_TEXTS, texts_in_torch[-len(REFERENCE_TEXTS) :]):
            file.write("text " + " ".join(f"{value:.7f}" for value in row) + " " + text + "\n")
    if right[TRAINING:].mean() < 0.985 or captions_right < 0.98:
        sys.exit("the encoders are not good enough")


if __name__ == "__main__":
    main()
