"""Random captions for the digits, for the text encoder and the drawing network, and the captions kept for measuring."""
import random
import string

from training import WORDS

NOTHING = 10  # the class of a text that names no single digit

LABELS = [f"the digit {word}" for word in WORDS]  # the ten texts that a picture is compared with

TEMPLATES = [
    "{}", "{}", "{}", "the digit {}", "the number {}", "a handwritten {}", "a {}", "the {}", "draw {}", "draw a {}",
    "write {}", "write the number {}", "a picture of a {}", "a drawing of the digit {}", "an image of {}", "this is a {}",
    "the answer is {}", "it is {}", "please draw the number {}", "show me a {}", "someone wrote {}", "a scan of a {}",
    "one digit: {}", "number {}", "digit {}", "{}!", "{}.", "{}, please", "{} by hand", "{} in white ink", "make a {}",
]
FILLERS = (
    "a an the of in on with by for to and my your his her our this that some very please can could will would you i we it is was be "
    "draw write show make give paint print picture image drawing scan photo digit number numeral figure sign symbol letter hand "
    "handwritten neat small big large bold thin thick round nice old new black white blue red ink paper pen chalk board child "
    "teacher answer result written drawn clear blurry quick slow simple plain style like as at from here now just want need see "
    "house tree cat dog car sky bird water green yellow happy sad hello what how many much not no yes good bad day night time"
).split()
# Words that have a digit's name inside, or nearly.
CONFUSABLE = (
    "bone stone phone someone none done alone often height weight freight tense heaven even eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred ten zeros onesie twofold tree "
    "fore fir sax sever fine line mine night won too to for ate knee tow eon net sin sit fix live hive dive give fist zest hero "
    "throe threw through fours fifth sixth seventh ninth eighth third first second once twice"
).split()

# Never used in training.
HELD_OUT = [
    "kindly sketch the numeral {} for me", "{} scribbled on a napkin", "could i get a nicely shaped {}?", "my favourite figure, {}",
    "an old-fashioned {}", "{} drawn with a felt tip", "scrawl {}", "a wobbly {} from a school exercise book", "handwriting: {}",
    "let me look at {}", "produce {} as pixels", "i would love to see {} today", "render a single {}", "the cipher {}",
    "a grey scan showing {}", "the postcode ends with {}", "{} = the thing to draw", "what does {} look like?", "draw me {} now, quickly",
    "put {} onto the canvas", "a child's {}", "a lonely {} in the dark", "type: digit, value: {}", "outcome: {}", "so: '{}'!",
]
HELD_OUT_NOTHING = [
    "a horse on a meadow", "sketch me a ship", "good morning", "an elephant", "the cone is stonewashed", "lightweight frame", "a canine companion",
    "draw 42", "the year 1998", "seventy-seven", "nobody knows", "often the bones", "a heavenly evening", "fortnight", "oneself",
]
HELD_OUT_TEXTS = frozenset([template.format(name) for template in HELD_OUT for name in [*WORDS, *"0123456789"]] + HELD_OUT_NOTHING)


def pseudo_word(source):
    return "".join(source.choices(string.ascii_lowercase, k=source.randint(2, 9)))


def confusable(source):
    """A digit's name with letters stuck to it, or a letter changed, or a number of several figures."""
    choice = source.random()
    if choice < 0.4:
        return source.choice(CONFUSABLE)
    if choice < 0.6:
        return str(source.randint(10, 2000))
    word = source.choice(WORDS)
    stuck = "".join(source.choices(string.ascii_lowercase, k=source.randint(1, 3)))
    if choice < 0.75:
        return word + stuck
    if choice < 0.9:
        return stuck + word
    place = source.randrange(len(word))
    return word[:place] + word[place + 1 :] if len(word) > 3 else word[0] + stuck


def filler(source):
    choice = source.random()
    if choice < 0.75:
        word = source.choice(FILLERS)
    elif choice < 0.92:
        word = pseudo_word(source)
    else:
        word = confusable(source)
    return "" if word in WORDS else word + (source.choice(".,:!?=-'+") if source.random() < 0.08 else "")


def caption(source, digit, length):
    """A text that names this digit, or no digit if it is NOTHING."""
    while True:
        if digit == NOTHING:
            words = [filler(source) for _ in range(source.randint(1, 6))]
            if source.random() < 0.6:
                words[source.randrange(len(words))] = confusable(source)
            if set(words) & set(WORDS):
                continue
            text = " ".join(words)
        else:
            name = str(digit) if source.random() < 0.45 else WORDS[digit]
            if source.random() < 0.04:
                name = source.choice([f"{WORDS[digit]}, {digit}", f"{digit} {WORDS[digit]}", f"'{name}'", f"={name}"])
            if source.random() < 0.4:
                text = source.choice(TEMPLATES).format(name)
            else:
                before = [filler(source) for _ in range(source.randint(0, 5))]
                after = [filler(source) for _ in range(source.choice([0, 0, 0, 1, 2, 3]))]
                text = " ".join([*before, name + source.choice(["", "", "", "", ".", "?", "!", ","]), *after])
        text = " ".join(text.split())
        if 0 < len(text) <= length and text not in HELD_OUT_TEXTS:
            return text
