"""Plain text as LaTeX or Markdown: the document compiles, whatever a name or a caption holds.

A bare `article` loads neither fontenc nor inputenc: so the LaTeX is only ASCII, in commands that
every encoding prints correctly.
"""

import re
import unicodedata

_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "[": "{[}",  # after a row end it would open an optional argument
    "*": "{*}",  # after a row end it would be part of the command
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textquoteleft{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "µ": r"$\mu$",
    "°": r"$^\circ$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "\u2212": r"$-$",
    "–": "--",
    "—": "---",
    "‘": r"\textquoteleft{}",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "\u00a0": "~",
    "\u2011": "-",
    "\u200b": r"\penalty500{}",  # a line may break here if there is no better place
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi"
_TEX |= {chr(0x3B1 + i): rf"$\{name}$" for i, name in enumerate(_GREEK.split())}
_TEX |= {
    chr(0x3C0 + i): rf"$\{name}$"
    for i, name in enumerate(
        ["pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"]
    )
}
_TEX |= {
    letter: rf"$\{name}$"
    for letter, name in zip(
        "ΓΔΘΛΞΠΣΦΨΩ",
        ["Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"],
        strict=True,
    )
}
# Combining marks that a letter can bear in every encoding.
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|])")


def escape_tex(text: object) -> str:
    """Escape plain text for LaTeX: special characters, accents, and signs unknown to pdflatex.

    A character without a LaTeX form becomes its code point, such as [U+809D]; white space, line
    ends included, becomes one space.
    """
    quoted = re.sub(r'"([^"]*)"', "“\\1”", one_line(text))
    return "".join(_character(character) for character in unicodedata.normalize("NFC", quoted))


def escape_markdown(text: object) -> str:
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def one_line(text: object) -> str:
    """Replace white space, except no-break spaces, by single spaces; none remains at the ends."""
    return re.sub(r"[^\S\u00a0]+", " ", str(text)).strip(" ")


def breakable(text: str, longest: int) -> str:
    """Put a place to break, U+200B, into every word that is longer than `longest`."""
    words = one_line(text).split(" ")
    return " ".join(
        "\u200b".join(word[i : i + 10] for i in range(0, len(word), 10))
        if len(word) > longest
        else word
        for word in words
    )


def _character(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    if " " <= character <= "\x7e":
        return character
    letter, *marks = list(unicodedata.normalize("NFD", character))
    if letter.isascii() and letter.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
        # i and j lose their dot under an accent above.
        dotless = rf"\{letter}" if letter in "ij" and marks[0] != "\u0327" else letter
        return rf"\{_ACCENTS[marks[0]]}{{{dotless}}}"
    return f"{{[}}U+{ord(character):04X}]"
