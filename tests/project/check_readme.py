#!/usr/bin/env python3
"""Checks that the code in README.md is the code of the examples.

A fenced block that follows the line <!-- from examples/x.cpp:tag --> has to equal what stands between the lines
"// [tag]" and "// [/tag]" of that file, without its indentation. Every C++ block has to come from somewhere.
"""

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(?:^<!-- from (\S+):(\S+) -->\n)?^```cpp\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def region(path, tag):
    match = re.search(rf"^ *// \[{re.escape(tag)}\]\n(.*?)^ *// \[/{re.escape(tag)}\]$", (ROOT / path).read_text(),
                      re.DOTALL | re.MULTILINE)
    return match and textwrap.dedent(match.group(1))


def main():
    readme = (ROOT / "README.md").read_text()
    failures = 0
    for match in BLOCK.finditer(readme):
        path, tag, code = match.groups()
        line = readme.count("\n", 0, match.start(3)) + 1
        problem = None
        if path is None:
            problem = "comes from no example: <!-- from examples/x.cpp:tag -->"
        elif not (ROOT / path).exists():
            problem = f"comes from {path}, which does not exist"
        elif region(path, tag) is None:
            problem = f"comes from a region that {path} does not have: [{tag}]"
        elif region(path, tag) != code:
            problem = f"differs from {path} [{tag}]"
        if problem:
            failures += 1
            print(f"README.md:{line}: the code {problem}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
