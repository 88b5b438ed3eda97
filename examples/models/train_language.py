#!/usr/bin/python3
"""Trains a character language model that answers small sums and counting questions in words.

Writes  language.onnx             96 characters in, the scores of the next character after each of them out
        language_reference.txt    questions and torch's own answers and scores, for the tests
"""
import argparse
import pathlib
import random
import sys
import time

from training import *
import questions
from questions import in_both_styles, number_word, question

LENGTH = 96
WIDTH = 96
HEADS = 4
BLOCKS = 2
STEPS = 5000
BATCH = 64
PEAK_RATE = 2e-3
FORBIDDEN = -1e4
REFERENCE = ["three plus four", "3+4", "What is 9 minus 2?", "count from two to nine", "what comes before eight?", "hello", "who wrote this?", "17 times 3"]


class Attention(nn.Module):
    """Each character looks at itself and those before it; the distance counts through a learned table."""

    def __init__(self):
        super().__init__()
        self.queries, self.keys, self.values, self.out = (nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(4))
        self.distances = nn.Parameter(torch.zeros(HEADS, LENGTH))
        self.bias = None

    def table(self, length):
        distance = torch.arange(length)[:, None] - torch.arange(length)[None]
        return self.distances[:, distance.clamp(min=0)].masked_fill(distance < 0, FORBIDDEN).unsqueeze(0)

    def forward(self, text):
        count, length = int(text.shape[0]), int(text.shape[3])

        def split(values):
            return values.reshape(count, HEADS, WIDTH // HEADS, length)

        # The scale is inside the queries: OpenCV 4.6 loses a constant factor that follows a product of matrices.
        queries, keys, values = split(self.queries(text)).transpose(2, 3), split(self.keys(text)), split(self.values(text)).transpose(2, 3)
        weights = F.softmax(queries @ keys + (self.table(length) if self.bias is None else self.bias), -1)
        return self.out((weights @ values).transpose(2, 3).reshape(count, WIDTH, 1, length))

    def freeze(self):
        """For the export: the whole table as one constant. OpenCV 4.6 cannot broadcast over the heads."""
        self.bias = self.table(LENGTH).detach().clone()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = Attention()
        self.expand, self.shrink = nn.Conv2d(WIDTH, 2 * WIDTH, 1), nn.Conv2d(2 * WIDTH, WIDTH, 1)

    def forward(self, text):
        text = text + self.attention(F.normalize(text, dim=1))
        return text + self.shrink(F.silu(self.expand(F.normalize(text, dim=1))))


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(len(ALPHABET), WIDTH, (1, 3))
        self.mix = nn.Conv2d(WIDTH, WIDTH, (1, 4))
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.out = nn.Conv2d(WIDTH, len(ALPHABET), 1)
        # The rows that enter the blocks have length one.
        for block in self.blocks:
            block.attention.queries.weight.data *= WIDTH**0.5 / (WIDTH // HEADS) ** 0.25
            block.attention.keys.weight.data *= WIDTH**0.5 / (WIDTH // HEADS) ** 0.25
            block.attention.values.weight.data *= WIDTH**0.5
            block.expand.weight.data *= WIDTH**0.5

    def forward(self, text):
        text = self.embed(F.pad(text, (2, 0, 0, 0), value=0.0))
        text = text + F.silu(self.mix(F.pad(text, (3, 0, 0, 0), value=0.0)))
        return self.out(F.normalize(self.blocks(text), dim=1) * WIDTH**0.5)


def numbers(text):
    return [ALPHABET.index(character) for character in text]


def batches(source):
    """Questions of similar length together, so that little is spent on the empty rest."""
    while True:
        pool = [question(source, LENGTH) for _ in range(16 * BATCH)]
        pool.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
        groups = [pool[at : at + BATCH] for at in range(0, len(pool), BATCH)]
        source.shuffle(groups)
        for group in groups:
            length = max(len(text) + len(answer) + 1 for text, answer in group)
            inputs, targets = torch.full((BATCH, length), -1), torch.full((BATCH, length), -1)
            for row, (text, answer) in enumerate(group):
                line = torch.tensor(numbers(f"{text}\n{answer}\n"))
                inputs[row, : len(line) - 1] = line[:-1]
                targets[row, len(text) : len(line) - 1] = line[len(text) + 1 :]  # only the answer is learned
            hot = (inputs[:, None] == torch.arange(len(ALPHABET))[None, :, None]).float()
            yield hot.unsqueeze(2), targets


def train(seed):
    network = Language().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS, pct_start=0.1)
    source = batches(random.Random(seed))
    total = 0.0
    for step in range(STEPS):
        inputs, targets = next(source)
        loss = F.cross_entropy(network(inputs).squeeze(2), targets, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 500 == 499:
            print(f"step {step + 1}: loss {total / 500:.4f}", flush=True)
            total = 0.0
    return network.eval()


def answers(network, asked):
    """The most likely characters until the end of the line, for questions of one length at a time."""
    result = {}
    for size in sorted({len(text) for text in asked}):
        group = [text for text in asked if len(text) == size]
        lines = [text.lower() + "\n" for text in group]
        done = [False] * len(group)
        while not all(done) and len(lines[0]) < LENGTH:
            with torch.no_grad():
                best = network(torch.from_numpy(one_hot(lines, len(lines[0]))))[:, :, 0, -1].argmax(1).tolist()
            lines = [line + ALPHABET[number] for line, number in zip(lines, best)]
            done = [finished or number == 0 for finished, number in zip(done, best)]
        result.update({text: line[size + 1 :].split("\n")[0] for text, line in zip(group, lines)})
    return result


def measure(network, name, pairs, show=6):
    pairs = list(dict.fromkeys(pairs))
    said = answers(network, list(dict.fromkeys(text for text, _ in pairs)))
    wrong = [(text, right) for text, right in pairs if said[text] != right]
    print(f"{name}: {len(pairs) - len(wrong)}/{len(pairs)} = {100 - 100 * len(wrong) / len(pairs):.2f} %")
    for text, right in wrong[:show]:
        print(f"   {text!r}: {said[text]!r}, not {right!r}")
    return 1 - len(wrong) / len(pairs)


def both(template, answer, **values):
    for text in in_both_styles(template, **values):
        yield text, answer


def sums(plus, minus, wanted):
    for a in range(10):
        for b in range(10):
            for templates, value in ((plus, a + b), (minus, a - b)):
                if wanted(value):
                    for template in templates:
                        yield from both(template, number_word(value), a=a, b=b)


def one_digit(value):
    return 0 <= value <= 9


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--output", type=pathlib.Path, default=HERE, help="folder for the files written")
    arguments = options.parse_args()

    single_threaded()
    torch.manual_seed(arguments.seed)
    started = time.process_time()
    network = train(arguments.seed)
    print(f"seed {arguments.seed}, {time.process_time() - started:.0f} s of training, "
          f"{sum(weights.numel() for weights in network.parameters()):,} weights; {versions()}")

    plain = measure(network, "all sums with a one-digit result, plain phrasings",
                    sums(["{a} plus {b}", "{a}+{b}", "what is {a} plus {b}?"], ["{a} minus {b}", "{a}-{b}", "what is {a} minus {b}?"], one_digit))
    measure(network, "the same, all phrasings of training", sums(questions.PLUS, questions.MINUS + questions.MINUS_REVERSED, one_digit))
    held_out = measure(network, "held-out phrasings, one-digit results", sums(questions.PLUS_HELD_OUT, questions.MINUS_HELD_OUT, one_digit))
    measure(network, "held-out phrasings, results of 10 to 18", sums(questions.PLUS_HELD_OUT, [], lambda value: value > 9))
    measure(network, "held-out phrasings, results below zero", sums([], questions.MINUS_HELD_OUT, lambda value: value < 0))
    measure(network, "held-out phrasings of before and after",
            (pair for template, step in questions.COUNTING_HELD_OUT for a in range(10) if a + step >= 0
             for pair in both(template, number_word(a + step), a=a)))
    measure(network, "counting up and down, held-out phrasings",
            (pair for template in questions.COUNT_HELD_OUT for a in range(10) for b in range(10)
             for pair in both(template, " ".join(WORDS[value] for value in range(a, b + (1 if b >= a else -1), 1 if b >= a else -1)), a=a, b=b)))
    measure(network, "other", [*questions.TALK, *((text, questions.UNKNOWN) for text in (
        "what is the weather like?", "tell me a joke", "who wrote this?", "12345 plus 6", "six times seven", "my horse is brown", "the capital of france"))])

    for block in network.blocks:
        block.attention.freeze()
    path = arguments.output / "language.onnx"
    export(network, torch.zeros(1, len(ALPHABET), 1, LENGTH), path, ["text"], "scores", dynamic=False)
    net = cv2.dnn.readNetFromONNX(str(path))
    torch_answers = answers_of_one(lambda text: network(torch.from_numpy(text)).detach().numpy())
    opencv_answers = answers_of_one(lambda text: forward(net, text=text))
    for text in REFERENCE:
        print(f"{text!r} -> {opencv_answers[text][0]!r}")
        if opencv_answers[text][0] != torch_answers[text][0]:
            sys.exit("OpenCV says something else than torch")
        compare(repr(text), opencv_answers[text][1], torch_answers[text][1], 1e-3)
    lines = [f"{text}\n{torch_answers[text][0]}\n" for text in REFERENCE]
    with torch.no_grad():
        whole = network(torch.from_numpy(one_hot(lines[:1], LENGTH))).numpy()
    compare("all columns", forward(net, text=one_hot(lines[:1], LENGTH)), whole, 1e-3)

    with open(arguments.output / "language_reference.txt", "w") as file:
        for text in REFERENCE:
            answer, scores = torch_answers[text]
            file.write(f"ask {text}\nanswer {answer}\nscores {' '.join(f'{value:.5f}' for value in scores)}\n")
    if plain < 0.98 or held_out < 0.95:
        sys.exit("the language model is not good enough")


def answers_of_one(run):
    """As the engine does it, a whole window per character: the answer, and the scores of its first character."""
    result = {}
    for text in REFERENCE:
        line, first = text.lower() + "\n", None
        while len(line) < LENGTH:
            scores = run(one_hot([line], LENGTH))[0, :, 0, len(line) - 1]
            first = scores if first is None else first
            line += ALPHABET[int(scores.argmax())]
            if line.endswith("\n"):
                break
        result[text] = line[len(text) + 1 :].rstrip("\n"), first
    return result


if __name__ == "__main__":
    main()
