#!/usr/bin/env python3
"""Writes the code blocks of a README into a folder, so that tests can compile and run them.

    readme_blocks.py README.md FOLDER

Each block becomes FOLDER/NUMBER.LANGUAGE, numbered from 1 as they stand. A block without a language is a mistake: nobody
would know how to test it. `text` says that a block is for reading only.
"""

import pathlib
import re
import sys


def blocks(text):
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def main():
    readme, folder = map(pathlib.Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    for number, (language, block) in enumerate(blocks(readme.read_text(encoding="utf-8")), start=1):
        if not re.fullmatch(r"[a-z]+", language):
            sys.exit(f"{readme}: block {number} has no language")
        (folder / f"{number}.{language}").write_text(block, encoding="utf-8")


if __name__ == "__main__":
    main()
