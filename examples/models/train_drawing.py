#!/usr/bin/python3
"""Trains a small conditional diffusion model (a rectified flow) that draws handwritten digits.

Reads   digits.png, digits_labels.txt; joint_text_encoder.onnx for the prompts;
        joint_image_encoder.onnx and classifier.onnx to read the drawings, after training only
Writes  drawing.onnx                  one step of the drawing, 32 x 32
        drawing_reference.txt         noise, one evaluation and a whole drawing by torch, for the tests
        drawing_sheet.png             ten seeds of each digit, with --sheet

Trains on the first 915 digits only.
"""
import argparse
import copy
import pathlib
import random
import sys
import time

from training import *
from captions import HELD_OUT, LABELS, NOTHING, caption

LENGTH = 64  # characters that the text encoder takes
STEPS = 3400
BATCH = 64
PEAK_RATE = 2e-3
AVERAGING = 0.996  # of the weights, over the steps
UNCONDITIONAL = 0.15  # how often the prompt is left out
CAPTIONS = 200  # per digit
NARROWEST = 0.1  # bounds the weight 1 / (1 - time)^2 of the loss
SAMPLER_STEPS = 8
GUIDANCE = 4.0
BACKGROUND = -7.0


def sharpen(images):
    """From 8 x 8 averages to SIZE x SIZE: a smooth field whose sigmoid has these averages, so edges are crisp."""
    scale = SIZE // images.shape[-1]

    def enlarge(values):
        return F.interpolate(values, size=(SIZE, SIZE), mode="bicubic", align_corners=False)

    field = (enlarge(images) - 0.5) * 10
    for _ in range(8):
        field = field + 5 * enlarge(images - F.avg_pool2d(torch.sigmoid(field), scale))
    return field.clamp(BACKGROUND, -BACKGROUND)


def vary(fields):
    """Slightly distorted copies, from -1 (black) to 1 (ink)."""
    return torch.sigmoid(distort(fields - BACKGROUND, 0.35) + BACKGROUND) * 2 - 1


class Residual(nn.Module):
    def __init__(self, width, condition):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.shift = nn.Linear(condition, width)
        self.second = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.second[2].weight.data *= 0.1

    def forward(self, image, condition):
        shift = self.shift(condition)
        return image + self.second(self.first(image) + shift.reshape(shift.shape[0], shift.shape[1], 1, 1))


class Drawing(nn.Module):
    """A U-Net on patches of 2 x 2 pixels. Says what the finished picture looks like, given a noisy one."""

    def __init__(self, condition=96):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, condition))
        self.text = nn.Linear(64, condition)
        self.begin = nn.Conv2d(1, 32, 4, stride=2, padding=1)  # 16 x 16
        self.down = nn.ModuleList([nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.Conv2d(64, 80, 3, stride=2, padding=1)])
        self.before = nn.ModuleList([Residual(32, condition), Residual(64, condition)])
        self.middle = Residual(80, condition)
        self.up = nn.ModuleList([nn.Conv2d(80, 64, 1), nn.Conv2d(64, 32, 1)])
        self.join = nn.ModuleList([nn.Conv2d(128, 64, 1), nn.Conv2d(64, 32, 1)])
        self.after = nn.ModuleList([Residual(64, condition), Residual(32, condition)])
        self.end = nn.Sequential(nn.GroupNorm(8, 32), nn.SiLU(), nn.Conv2d(32, 4, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, image, time, text):
        condition = F.silu(self.time(time) + self.text(text))
        fine = self.before[0](self.begin(image), condition)
        coarse = self.before[1](self.down[0](fine), condition)
        deep = self.middle(self.down[1](coarse), condition)

        def enlarge(values):
            return F.interpolate(values, scale_factor=2.0, mode="nearest")

        deep = self.after[0](self.join[0](torch.cat([enlarge(self.up[0](deep)), coarse], 1)), condition)
        return self.end(self.after[1](self.join[1](torch.cat([enlarge(self.up[1](deep)), fine], 1)), condition))


def train(fields, labels, prompts):
    """prompts: digit (or NOTHING) to embedded captions."""
    network = Drawing().train()
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=0.01, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS, pct_start=0.08)
    table = torch.stack([prompts[digit] for digit in range(10)])
    order, total = torch.empty(0, dtype=torch.long), 0.0
    for step in range(STEPS):
        if len(order) < BATCH:
            order = torch.randperm(len(fields))
        chosen, order = order[:BATCH], order[BATCH:]
        clean = vary(fields[chosen])
        text = table[labels[chosen], torch.randint(CAPTIONS, (BATCH,))]
        # Without a prompt, or with one that names no digit, any digit will do.
        choice = torch.rand(BATCH, 1)
        text = torch.where(choice < UNCONDITIONAL, torch.zeros(1), text)
        text = torch.where(choice > 0.96, prompts[NOTHING][torch.randint(CAPTIONS, (BATCH,))], text)
        when = torch.sigmoid(torch.randn(BATCH, 1) * 1.1 - 0.3)
        noisy = when.view(-1, 1, 1, 1) * clean + (1 - when).view(-1, 1, 1, 1) * torch.randn_like(clean)
        error = (network(noisy, when, text) - clean).square().mean((1, 2, 3))
        loss = (error / (1 - when[:, 0]).clamp(min=NARROWEST).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        follow(average, network, step, AVERAGING)
        total += loss.item()
        if step % 200 == 199:
            print(f"step {step + 1}: loss {total / 200:.4f}", flush=True)
            total = 0.0
    return average


def noise(seed):
    """Nearly normal numbers from whole-number arithmetic alone: the same on every machine, to the bit."""
    mask, state, values = (1 << 64) - 1, seed & ((1 << 64) - 1), []
    for _ in range(SIZE * SIZE):
        total = 0
        for _ in range(3):  # splitmix64
            state = (state + 0x9E3779B97F4A7C15) & mask
            mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
            mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
            mixed ^= mixed >> 31
            total += sum((mixed >> shift) & 0xFFFF for shift in (0, 16, 32, 48))
        values.append((total - 393210) / 65536)
    return np.array(values, np.float32).reshape(1, 1, SIZE, SIZE)


def draw(run, seeds, texts, steps=SAMPLER_STEPS, guidance=GUIDANCE, keep=None):
    """Euler's method from noise to picture. run(image, time, text) is the network."""
    image = np.concatenate([noise(seed) for seed in seeds])
    for step in range(steps):
        when = np.full((len(image), 1), step / steps, np.float32)
        clean, anything = run(image, when, texts), run(image, when, np.zeros_like(texts))
        clean = anything + np.float32(guidance) * (clean - anything)
        image = image + (clean - image) / np.float32(steps - step)
        if keep is not None:
            keep.append(clean)
    return image


def pixels(images):
    """The picture as bytes, ink white on black."""
    return np.clip(np.rint((images[:, 0] + 1) * 127.5), 0, 255).astype(np.uint8)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--output", type=pathlib.Path, default=HERE, help="folder for the files written")
    options.add_argument("--sheet", action="store_true", help="also write drawing_sheet.png")
    arguments = options.parse_args()

    single_threaded()
    tiles, labels = read_digits()
    fields = sharpen(torch.from_numpy(tiles[:TRAINING]).float().unsqueeze(1) / 255)
    nets = {name: cv2.dnn.readNetFromONNX(str(arguments.output / f"{name}.onnx")) for name in ("joint_text_encoder", "joint_image_encoder", "classifier")}

    def tell(texts):
        return F.normalize(torch.from_numpy(forward(nets["joint_text_encoder"], text=one_hot(texts, LENGTH)))).numpy()

    source = random.Random(arguments.seed)
    prompts = {digit: torch.from_numpy(tell([caption(source, digit, LENGTH) for _ in range(CAPTIONS)])) for digit in range(11)}
    started = time.process_time()
    torch.manual_seed(arguments.seed)
    network = train(fields, labels[:TRAINING], prompts)
    print(f"seed {arguments.seed}, {time.process_time() - started:.0f} s of training, "
          f"{sum(weights.numel() for weights in network.parameters()):,} weights; {versions()}")

    path = arguments.output / "drawing.onnx"
    export(network, (torch.zeros(1, 1, SIZE, SIZE), torch.zeros(1, 1), torch.zeros(1, 64)), path, ["image", "time", "text"], "clean", dynamic=False)
    net = cv2.dnn.readNetFromONNX(str(path))

    def in_opencv(image, when, text):
        return forward(net, image=image, time=when, text=text)

    def in_torch(image, when, text):
        with torch.no_grad():
            return network(torch.from_numpy(image), torch.from_numpy(when), torch.from_numpy(text)).numpy()

    labelled = tell(LABELS)
    seven = labelled[7:8]
    for when in (0.0, 0.5, 0.9375):
        at = np.float32([[when]])
        compare(f"one evaluation at {when}", in_opencv(noise(1), at, seven), in_torch(noise(1), at, seven), 1e-3)
    began, previews = time.monotonic(), []
    through_opencv = np.concatenate([draw(in_opencv, [1], labelled[digit : digit + 1]) for digit in range(10)])
    print(f"one drawing takes {(time.monotonic() - began) * 100:.0f} ms in OpenCV, one thread")
    in_one_go = draw(in_torch, [1] * 10, labelled)
    compare("ten whole drawings", through_opencv, in_one_go, 1e-2)

    def read(pictures):
        seen = F.normalize(torch.from_numpy(forward(nets["joint_image_encoder"], image=blob(pictures)))).numpy() @ labelled.T
        return seen, forward(nets["classifier"], image=blob(pictures)).argmax(1)

    def report(name, asked, seeds, texts, **settings):
        digits, drawn = np.array(asked), []
        for at in range(0, len(digits), 50):
            drawn.append(draw(in_torch, seeds[at : at + 50], texts[at : at + 50], **settings))
        pictures = pixels(np.concatenate(drawn))
        cosines, second = read(list(pictures))
        first = cosines.argmax(1)
        print(f"{name}: {(first == digits).sum()}/{len(digits)} read back as asked, classifier agrees on {(second == digits).sum()}, "
              f"mean cosine {cosines[range(len(digits)), digits].mean():.3f}")
        for row in np.flatnonzero((first != digits) | (second != digits))[:10]:
            print(f"   seed {seeds[row]}: asked {digits[row]}, read {first[row]}, classifier {second[row]}")
        return pictures, (first == digits).mean(), (second == digits).mean()

    ten = [*range(10)] * 30
    sheet, *good = report("ten labels, 30 seeds", ten, [seed for seed in range(30) for _ in range(10)], labelled[ten])
    unseen = [(template.format(name), digit) for template in HELD_OUT for digit, word in enumerate(WORDS) for name in (word, str(digit))]
    _, *unseen_good = report("captions never seen, one seed each", [digit for _, digit in unseen], range(1000, 1000 + len(unseen)), tell([text for text, _ in unseen]))
    for steps, guidance in ((4, 4.0), (16, 4.0), (32, 4.0), (8, 1.0), (8, 2.0), (8, 3.0)):
        report(f"{steps} steps, guidance {guidance}", ten[:100], [seed for seed in range(10) for _ in range(10)], labelled[ten[:100]], steps=steps, guidance=guidance)

    def nearest(queries):
        entries = tiles[:TRAINING].reshape(TRAINING, 64) / 255
        return np.array([np.sqrt(((entries - query.reshape(1, 64)) ** 2).sum(1).min()) for query in queries])

    small = sheet.reshape(-1, 8, SIZE // 8, 8, SIZE // 8).mean((2, 4)) / 255
    for name, distances in (("drawings", nearest(small)), ("held-out scans", nearest(tiles[TRAINING:] / 255))):
        print(f"distance to the nearest training scan, 8 x 8, {name}: mean {distances.mean():.3f}, least {distances.min():.3f}, "
              + ", ".join(f"{quantile} % below {np.quantile(distances, quantile / 100):.3f}" for quantile in (1, 10, 50, 90)))
    spread_of = np.mean([small[[row for row, digit in enumerate(ten) if digit == wanted]].std(0).mean() for wanted in range(10)])
    spread_in = np.mean([tiles[TRAINING:][labels[TRAINING:].numpy() == wanted].std(0).mean() / 255 for wanted in range(10)])
    print(f"spread of pixels within a digit: drawings {spread_of:.3f}, held-out scans {spread_in:.3f}")

    with open(arguments.output / "drawing_reference.txt", "w") as file:
        def line(name, values, form):
            file.write(f"{name} " + " ".join(format(value, form) for value in np.asarray(values).ravel()) + "\n")

        line("noise 1", noise(1).ravel()[:16], ".9g")
        line("noise 18446744073709551615", noise(2**64 - 1).ravel()[:16], ".9g")
        line("text", seven, ".7f")
        line("evaluation", in_torch(noise(1), np.float32([[0.5]]), seven), ".5f")
        for digit in range(10):
            line(f"drawing {digit}", pixels(in_one_go)[digit], "d")
    if arguments.sheet:
        rows = [np.pad(np.concatenate([np.pad(sheet[seed * 10 + digit], 3) for digit in range(10)], 1), 0) for seed in range(10)]
        cv2.imwrite(str(arguments.output / "drawing_sheet.png"), np.kron(np.concatenate(rows), np.ones((2, 2), np.uint8)))
        draw(in_torch, [1], seven, keep=previews)
        cv2.imwrite(str(arguments.output / "drawing_steps.png"), np.concatenate([np.kron(pixels(step)[0], np.ones((2, 2), np.uint8)) for step in previews], 1))
    if min(good[0], unseen_good[0]) < 0.99 or min(good[1], unseen_good[1]) < 0.98:
        sys.exit("the drawings are not good enough")


if __name__ == "__main__":
    main()
