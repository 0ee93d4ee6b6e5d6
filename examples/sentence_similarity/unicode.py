#!/usr/bin/env python3
"""Writes unicode.h: what BERT's tokenizer makes of each character, asked of the package tokenizers: unicode.py VOCAB.txt

A character whose normal form has a character that no token of the vocabulary has makes its word unknown, with or without a
row here; so these have none. Hangul syllables are computed.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from tokenizers import normalizers, pre_tokenizers

HERE = Path(__file__).parent
normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()


def normal_form(character: str) -> str:
    return normalizer.normalize_str(f"a{character}a")[1:-1]


def ranges(characters: Iterable[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for c in characters:
        if found and found[-1][1] == c - 1:
            found[-1] = (found[-1][0], c)
        else:
            found.append((c, c))
    return found


def table(declaration: str, rows: Iterable[str]) -> str:
    lines = [f"inline constexpr {declaration}[] = {{"]
    for row in rows:
        if len(lines) == 1 or len(lines[-1]) + len(row) > 118:
            lines.append("   ")
        lines[-1] += f" {row},"
    return "\n".join(lines + ["};\n\n"])


def main() -> None:
    vocabulary = set("".join(Path(sys.argv[1]).read_text(encoding="utf-8").split("\n")))
    gone, spaces, alone, forms = [], [], [], {}
    for c in (c for c in range(0x110000) if not 0xD800 <= c < 0xE000):
        form = normal_form(chr(c))
        if not form:
            gone.append(c)
        elif form == " ":
            spaces.append(c)
        elif not 0xAC00 <= c < 0xD7A4:
            if form.strip() != chr(c) and set(form.strip()) <= vocabulary:
                forms[c] = form.strip()
            elif len(splitter.pre_tokenize_str(f"a{form}a")) == 3:
                alone.append(c)
    of_form: dict[str, str] = {}
    for c, form in forms.items():
        of_form[form] = of_form.get(form, "") + chr(c)
    text = "#pragma once\n/// Made by unicode.py: what BERT's tokenizer makes of each character.\n"
    text += "// clang-format off\nnamespace unicode {\n\n"
    text += "/// `form` is what becomes of each of the characters: small letters without accents.\n"
    text += "struct Form {\n  const char32_t *form, *characters;\n};\n"
    text += table("Form forms", (f'{{U"{form}", U"{characters}"}}' for form, characters in of_form.items()))
    text += "struct Range {\n  char32_t first, last;\n};\n"
    for name, group, what in (
        ("gone", gone, "Control characters and accents, which are dropped."),
        ("spaces", spaces, "What parts words."),
        ("alone", alone, "What is a word of its own: punctuation and ideographs."),
    ):
        text += f"/// {what}\n" + table(f"Range {name}", (f"{{{a:#x}, {b:#x}}}" for a, b in ranges(group)))
    text += "}  // namespace unicode\n"
    (HERE / "unicode.h").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
