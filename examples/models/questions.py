"""Random questions with their answers for the language model, and the phrasings kept for measuring."""
import random
import string

from captions import FILLERS, pseudo_word
from training import WORDS

MORE = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"]
UNKNOWN = "i only know small numbers"

# {a} and {b} are the numbers. One set of phrasings per order of the numbers.
PLUS = [
    "{a} plus {b}", "{a} plus {b}", "{a} plus {b}?", "{a}+{b}", "{a} + {b}", "{a}+{b}=", "{a} + {b} =", "{a}+{b}?", "{a} + {b} = ?", "{a} and {b}", "add {a} and {b}",
    "add {a} to {b}", "what is {a} plus {b}?", "what is {a} plus {b}", "what is {a} + {b}?", "what's {a} plus {b}?", "what is {a} and {b}?",
    "how much is {a} plus {b}?", "how much is {a} and {b}?", "how many are {a} and {b}?", "what do {a} and {b} make?", "the sum of {a} and {b}",
    "what is the sum of {a} and {b}?", "can you add {a} and {b}?", "please add {a} and {b}", "{a} added to {b}", "what is {a} added to {b}?",
    "i have {a} apples and get {b} more, how many?", "{a} apples plus {b} apples", "tell me {a} plus {b}", "{a} plus {b} is", "{a} plus {b} makes",
    "if you add {a} and {b}, what is it?", "sum {a} and {b}", "sum: {a}, {b}", "compute {a} plus {b}", "{a} more than {b}", "what is {a} more than {b}?",
]
MINUS = [
    "{a} minus {b}", "{a} minus {b}", "{a} minus {b}?", "{a}-{b}", "{a} - {b}", "{a}-{b}=", "{a} - {b} =", "{a}-{b}?", "{a} - {b} = ?", "{a} less {b}", "{a} take away {b}",
    "what is {a} minus {b}?", "what is {a} minus {b}", "what is {a} - {b}?", "what's {a} minus {b}?", "what is {a} take away {b}?", "how much is {a} minus {b}?",
    "how much is {a} less {b}?", "what is left of {a} without {b}?", "{a} without {b}", "tell me {a} minus {b}", "{a} minus {b} is", "{a} minus {b} makes",
    "i have {a} apples and lose {b}, how many?", "{a} apples minus {b} apples", "compute {a} minus {b}", "the difference of {a} and {b}",
    "what is the difference of {a} and {b}?", "if you have {a} and lose {b}, what is left?",
]
MINUS_REVERSED = [
    "take {b} from {a}", "take {b} away from {a}", "subtract {b} from {a}", "please subtract {b} from {a}", "what is {b} less than {a}?", "{b} less than {a}",
    "what is left if you take {b} from {a}?", "can you subtract {b} from {a}?", "{b} subtracted from {a}",
]
# Never used in training. The words for the operation are known, the sentences are not.
PLUS_HELD_OUT = [
    "please tell me what {a} plus {b} is", "so, how much would {a} plus {b} be?", "{a} plus {b} equals what?", "have you any idea what {a} + {b} is?", "my homework says {a}+{b}, help",
    "what number is the sum of {a} and {b}?", "add the numbers {a} and {b} for me", "{a} birds plus {b} birds", "i wonder what {a} and {b} make", "quick: {a} plus {b}!",
    "calculate {a} + {b} please", "what will it be if i add {a} to {b}?", "{a} cats and {b} cats, how many?",
]
MINUS_HELD_OUT = [
    "please tell me what {a} minus {b} is", "so, how much would {a} minus {b} be?", "{a} minus {b} equals what?", "have you any idea what {a} - {b} is?", "my homework says {a}-{b}, help",
    "subtract the number {b} from {a} for me", "{a} birds minus {b} birds", "i wonder what {a} take away {b} is", "quick: {a} minus {b}!", "calculate {a} - {b} please",
    "what will it be if i take {b} from {a}?", "i have {a} cats and lose {b} cats, how many?",
]
AFTER = ["what comes after {a}?", "what number comes after {a}?", "the number after {a}", "after {a} comes", "what is next after {a}?", "which number follows {a}?", "one more than {a}", "count on from {a}"]
BEFORE = ["what comes before {a}?", "what number comes before {a}?", "the number before {a}", "before {a} comes", "which number is before {a}?", "one less than {a}"]
BETWEEN = ["what is between {a} and {b}?", "which number is between {a} and {b}?", "the number between {a} and {b}", "what comes between {a} and {b}?"]
COUNT = ["count from {a} to {b}", "please count from {a} to {b}", "can you count from {a} to {b}?", "{a} to {b}", "the numbers from {a} to {b}", "count {a} to {b}"]
COUNT_TO = ["count to {b}", "please count to {b}", "can you count to {b}?", "count up to {b}"]
COUNTING_HELD_OUT = [
    ("name the number after {a}", 1), ("what, then, comes after {a}", 1), ("which number comes after {a}?", 1), ("name the number before {a}", -1), ("what, then, comes before {a}?", -1),
    ("have you any idea what is one more than {a}?", 1), ("is there one less than {a}?", -1), ("what number follows {a}?", 1),
]
COUNT_HELD_OUT = ["i want you to count from {a} to {b}", "now count from {a} up to {b}", "count for me from {a} to {b}"]
TALK = [
    ("hello", "hello, ask me a sum"), ("hi", "hello, ask me a sum"), ("good morning", "hello, ask me a sum"), ("hello there", "hello, ask me a sum"),
    ("who are you?", "a very small language model"), ("what are you?", "a very small language model"), ("what is your name?", "a very small language model"),
    ("thank you", "you are welcome"), ("thanks", "you are welcome"), ("bye", "goodbye"), ("goodbye", "goodbye"),
    ("what can you do?", "small sums and counting"), ("help", "small sums and counting"), ("what do you know?", "small sums and counting"),
]
BEFORES = [
    "please", "hello,", "hi,", "tell me,", "so", "now", "and", "well,", "ok,", "say,", "quickly,", "question:", "do you know", "i want to know", "can you say", "could you tell me",
    "help me with", "my teacher asks", "the question is", "let me ask:", "next:", "i think", "show me",
]
AFTERS = ["please", "?", "!", ".", "for me", "now", "thanks", ", please", "then", "do you know?", "tell me", "in words", "today", ", ok?", "again", "help"]


def number_word(value):
    return "minus " + number_word(-value) if value < 0 else (WORDS + MORE)[value]


def in_both_styles(template, **numbers):
    return [template.format(**{name: style(number) for name, number in numbers.items()}) for style in (str, number_word)]


HELD_OUT_TEXTS = frozenset(
    text
    for template in [*PLUS_HELD_OUT, *MINUS_HELD_OUT, *COUNT_HELD_OUT, *(template for template, _ in COUNTING_HELD_OUT)]
    for a in range(10)
    for b in range(10)
    for text in in_both_styles(template, a=a, b=b)
)


def write(source, number):
    return str(number) if source.random() < 0.5 else number_word(number)


def fill(source, template, **numbers):
    if source.random() < 0.85:  # all numbers in one style
        style = (lambda number: str(number)) if source.random() < 0.5 else number_word
        return template.format(**{name: style(number) for name, number in numbers.items()})
    return template.format(**{name: write(source, number) for name, number in numbers.items()})


def plain_question(source):
    kind = source.random()
    digit, other = source.randrange(10), source.randrange(10)
    if kind < 0.33:
        return fill(source, source.choice(PLUS), a=digit, b=other), number_word(digit + other)
    if kind < 0.66:
        if digit < other and source.random() < 0.8:
            digit, other = other, digit
        template = source.choice(MINUS) if source.random() < 0.7 else source.choice(MINUS_REVERSED)
        return fill(source, template, a=digit, b=other), number_word(digit - other)
    if kind < 0.73:
        return fill(source, source.choice(AFTER), a=digit), number_word(digit + 1)
    if kind < 0.79:
        return fill(source, source.choice(BEFORE), a=digit + 1), number_word(digit)
    if kind < 0.82:
        return fill(source, source.choice(BETWEEN), a=digit, b=digit + 2), number_word(digit + 1)
    if kind < 0.90:
        if source.random() < 0.25:
            digit, other = 1, max(other, 1)
            template = source.choice(COUNT_TO)
        else:
            template = source.choice(COUNT)
        step = 1 if other >= digit else -1
        return fill(source, template, a=digit, b=other), " ".join(WORDS[value] for value in range(digit, other + step, step))
    if kind < 0.93:
        return source.choice(TALK)
    if kind < 0.95:
        big, sign = source.randint(20, 999), source.choice([" plus ", "+", " + ", " minus ", "-", " times "])
        pair = [str(big), write(source, digit)]
        source.shuffle(pair)
        return source.choice(["", "what is "]) + sign.join(pair), UNKNOWN
    if kind < 0.965:
        return fill(source, source.choice(["{a} times {b}", "what is {a} times {b}?", "{a} by {b}", "how much is {a} times {b}?"]), a=digit, b=other), UNKNOWN
    words = [source.choice(FILLERS) if source.random() < 0.7 else pseudo_word(source) for _ in range(source.randint(1, 7))]
    return " ".join(words) + source.choice(["", "?", "."]), UNKNOWN


def question(source, limit):
    """A question, at times with other words around it, and its answer."""
    while True:
        text, answer = plain_question(source)
        if source.random() < 0.35:
            before = source.choice(BEFORES) if source.random() < 0.7 else " ".join(
                source.choice(FILLERS) if source.random() < 0.6 else pseudo_word(source) for _ in range(source.randint(1, 4)))
            text = before + " " + text
        if source.random() < 0.25:
            after = source.choice(AFTERS) if source.random() < 0.7 else " ".join(
                source.choice(FILLERS) if source.random() < 0.6 else pseudo_word(source) for _ in range(source.randint(1, 3)))
            text = (text.rstrip("?.") if source.random() < 0.5 else text) + (" " if after[0].isalpha() else "") + after
        # A stray "minus" or name of a number would change the answer; the lists have none.
        if len(text) + len(answer) + 2 <= limit and text not in HELD_OUT_TEXTS:
            return text, answer
