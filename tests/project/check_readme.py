#!/usr/bin/env python3
"""Checks that what the documents say of the code is so.

- A fenced C++ block that follows the line <!-- from examples/x.cpp:tag --> equals what stands between the lines "// [tag]" and
  "// [/tag]" of that file, without its indentation. In README.md every C++ block comes from somewhere.
- A link to a file leads to one.
- tests/BEHAVIOURS.md has a line for each number that a test is tagged with, [b3], and for no other.
"""

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "include/roster/README.md", "examples/README.md", "tests/BEHAVIOURS.md", "tests/benchmarks/README.md"]
BLOCK = re.compile(r"(?:^<!-- from (\S+):(\S+) -->\n)?^```cpp\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)|(?:src|srcset|href)=\"(?!\w+:)([^\"#]+)")


def region(path, tag):
    match = re.search(rf"^ *// \[{re.escape(tag)}\]\n(.*?)^ *// \[/{re.escape(tag)}\]$", (ROOT / path).read_text(),
                      re.DOTALL | re.MULTILINE)
    return match and textwrap.dedent(match.group(1))


def problem_of(path, tag, code, must_come_from_somewhere):
    if path is None:
        return must_come_from_somewhere and "comes from no example: <!-- from examples/x.cpp:tag -->"
    if not (ROOT / path).exists():
        return f"comes from {path}, which does not exist"
    there = region(path, tag)
    if there is None:
        return f"comes from a region that {path} does not have: [{tag}]"
    return there != code and f"differs from {path} [{tag}]"


def anchors(text):
    """What the headings of a document are linked as."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def check_document(name):
    text = (ROOT / name).read_text()

    def at(position):
        return f"{name}:{text.count(chr(10), 0, position) + 1}"

    for match in BLOCK.finditer(text):
        if problem := problem_of(*match.groups(), name == "README.md"):
            yield f"{at(match.start(3))}: the code {problem}"
    for match in LINK.finditer(text):
        target = (ROOT / name).parent / (match.group(1) or match.group(3) or Path(name).name)
        if not target.exists():
            yield f"{at(match.start())}: there is no {match.group(1) or match.group(3)}"
        elif match.group(2) and match.group(2) not in anchors(target.read_text()):
            yield f"{at(match.start())}: {target.name} has no heading {match.group(2)}"


def check_behaviours():
    listed = re.findall(r"^\| b(\d+) \|", (ROOT / "tests/BEHAVIOURS.md").read_text(), re.MULTILINE)
    used = {number for path in (ROOT / "tests").rglob("*.cpp") for number in re.findall(r"\[b(\d+)\]", path.read_text())}
    for number in sorted(used ^ set(listed), key=int):
        yield f"tests/BEHAVIOURS.md: b{number} is " + ("missing" if number in used else "what no test is tagged with")
    for number in sorted({each for each in listed if listed.count(each) > 1}):
        yield f"tests/BEHAVIOURS.md: b{number} stands there twice"


def main():
    findings = [finding for name in DOCUMENTS for finding in check_document(name)] + list(check_behaviours())
    print("\n".join(findings) if findings else "no findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
