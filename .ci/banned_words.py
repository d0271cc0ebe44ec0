"""Find words that the project's prose avoids: in documentation, docstrings, comments and messages.

``python .ci/banned_words.py [ROOT] [--count]`` prints file, line, phrase and replacement, and fails if it finds any.
Code is exempt: identifiers, code blocks and text in backticks.
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARED = "different|longer|more|less|fewer|larger|smaller|higher|lower|slower|faster|better|worse|later|earlier"
_NUMBERS = r"\d[\d,.]*|two|three|four|five|six|seven|eight|nine|ten|twenty|hundreds?|thousands?|millions?"

PHRASES = {
    # standard terms that were paraphrased
    r"(?:go|goes|going|gone|went) on": "resume, continue",
    r"(?:tells?|told|telling)(?!\s+(?:[\w,-]+\s+){0,9}apart)": "report, say, show, list, raise",
    r"(?:is|are|was|were|be|been) (?:not |all |also |still |seen |decoded )?whole(?! number)": "is complete",
    r"whole (?:file|store|folder|machine|project|output|page|journal|document)s?": "complete, entire",
    r"anew": "again; overwrite, restart",
    r"mend(?:s|ed|ing)?": "repair, fix",
    r"dear(?:er|est)?": "expensive, slow",
    r"half[- ](?:made|finished|written)": "partial, incomplete",
    r"(?:made|make|makes|written|write|writes|put|moved) aside": "written to a temporary file or folder",
    r"(?:get|gets|got|given) (?:its|their) (?:final )?names?": "is renamed when complete; appears when complete",
    r"on (?:its|their) way": "in flight",
    r"hangs? together": "connected component",
    r"yes and no": "boolean",
    r"(?:hold|holds|held) (?:threads|python|the interpreter) up": "the GIL limits",
    r"(?<!segmentation )(?<!page )(?<!make )fault(?:s|y)?": "error, failure, invalid",
    r"mistakes?": "error",
    r"runs? that (?:was|were|is|are) ended": "interrupted run",
    r"put down to": "attributed to",
    r"nearer to one than": "nearest",
    # roundabout grammar
    r"so many": "the number itself, or 'n'",
    rf"(?<!there )(?<!there can )(?<!there may )(?:is|are|was|were|be) no (?!(?:{_COMPARED})\b)[a-z]+": (
        "is not a, is invalid, is missing"
    ),
    r"of (?:its|their) own": "its, separate",
    r"(?:that|which) (?:is|are|was|were) (?:not |already )?there": "existing, missing",
    r"what (?:is|are|was|were)(?![^.!?]*\?)": "name the thing",
    r"that which": "name the thing",
    r"as (?:it (?:is|was)|they (?:are|were))(?=\s*(?:[.,;:!)]|\Z|(?:in|on|by|and|for|to)\b))": "unchanged",
    r"stands? (?:below|above|here|there)": "see below, is listed below",
    r"compared is": "compared with",
    r"half as \w+ again": "50% more",
    rf"some (?:{_NUMBERS})": "about",
    # the words of this project
    r"stamp(?:s|ed|ing)?": "single-cell image, crop",
}

HEADINGS = {
    r"on": "Next steps",
    r"nothing .*": "name the topic",
    r"the way .*": "How it works",
}

NAMES = re.compile(r"\bSTAMP\b")
"""Names of other projects that look like a phrase."""

_CODE = re.compile(r"``.+?``|`[^`\n]*`", re.DOTALL)
_TARGET = re.compile(r"(?<=\])\([^)\s]*\)|https?://\S+|<[^<>\n]+>")
_BEHIND = re.compile(r"\(\?<![^)]*\)")
_PARAMETERS = re.compile(r"^( *)\*{0,2}\w+(?:, \*{0,2}\w+)*(?: : .*)?$(?=\n\1 +\S)", re.MULTILINE)
"""Names of parameters in a docstring: a line of names above a deeper one."""
_FENCE = re.compile(r"\s*(`{3,}|~{3,}|:{3,})(.*)")


@dataclass(frozen=True)
class Prose:
    """Text to check, and the line of the file where it starts."""

    line: int
    text: str


@dataclass(frozen=True)
class Finding:
    """A phrase at a line of a file, and the words to use instead."""

    path: Path
    line: int
    phrase: str
    instead: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: "{self.phrase}": use {self.instead}'


def _compiled(phrases: dict[str, str], frame: str) -> list[tuple[re.Pattern[str], str]]:
    """Compile patterns in which a space stands for any white space, a line break included."""
    compiled = []
    for pattern, instead in phrases.items():
        spaced = pattern.replace(" ", r"\s+")
        fixed = _BEHIND.sub(lambda match: match[0].replace("+", ""), spaced)  # a look-behind needs a fixed width
        compiled.append((re.compile(frame.format(fixed), re.IGNORECASE), instead))
    return compiled


_PHRASES = _compiled(PHRASES, r"(?<![\w.-])(?:{})(?![\w-])")
_HEADINGS = _compiled(HEADINGS, r"^#+\s+(?:{})\s*$")


def findings_in(prose: Prose) -> Iterator[tuple[int, str, str]]:
    """Yield line, phrase and replacement for each match in a text, in the order of the lines."""
    text = _without_code(prose.text)
    found = [
        (prose.line + text.count("\n", 0, match.start()), " ".join(match.group().split()), instead)
        for pattern, instead in _PHRASES
        for match in pattern.finditer(text)
    ]
    yield from sorted(found)


def _without_code(text: str) -> str:
    """Replace code, link targets and names by a placeholder, and keep the line breaks."""
    for pattern in (_CODE, _TARGET, _PARAMETERS, NAMES):
        text = pattern.sub(lambda match: "_" + "\n" * match.group().count("\n"), text)
    return text


def prose_of_python(source: str) -> Iterator[Prose]:
    """Yield docstrings, other strings of more than one word, and comments."""
    tree = ast.parse(source)
    yield from _strings(tree)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(token.start[0], token.string.lstrip("#: ")) for token in tokens if token.type == tokenize.COMMENT]
    yield from _joined(comments)


def _strings(node: ast.AST) -> Iterator[Prose]:
    """Yield strings; an f-string is one text, with a placeholder for each value."""
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "_" for part in node.values]
        yield from _string(node, "".join(str(part) for part in parts))
        children = [part for part in node.values if not isinstance(part, ast.Constant)]
    else:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _string(node, node.value)
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _strings(child)


def _string(node: ast.expr, text: str) -> Iterator[Prose]:
    if not re.search(r"\w\s+\w", text):
        return
    # only in a string of three quotes do its lines agree with those of the file
    agree = text.count("\n") == (node.end_lineno or node.lineno) - node.lineno
    yield Prose(node.lineno, text if agree else text.replace("\n", " "))


def prose_of_markdown(source: str) -> Iterator[Prose]:
    """Yield the text outside of code, and the comments in code."""
    lines, comments, fences = [], [], list[tuple[str, bool]]()
    for number, line in enumerate(source.splitlines(), start=1):
        mark = _FENCE.fullmatch(line)
        in_code = bool(fences) and fences[-1][1]
        if mark and fences and mark[1].startswith(fences[-1][0]) and not mark[2].strip():
            fences.pop()
        elif mark and not in_code:
            fences.append((mark[1], _is_code(mark[2])))
        elif not in_code:
            lines.append((number, line))
        elif comment := re.search(r"(?:^|\s)#\s(.*)", line):
            comments.append((number, comment[1]))
    yield from _joined(lines)
    yield from _joined(comments)


def _is_code(info: str) -> bool:
    """Return whether a fence opens code, not an admonition: `python`, `{code-cell}`, but not `{warning}`."""
    return not re.match(r"\s*\{(?!code|raw|eval|toctree|image|auto)", info)


def prose_of_comments(source: str) -> Iterator[Prose]:
    """Yield the comments of YAML, and of a Makefile the help texts, too."""
    numbered = enumerate(source.splitlines(), start=1)
    pattern = re.compile(r"(?:^|\s)#\s*(.*)|echo \"(.*)\"")
    found = [(number, match) for number, line in numbered if (match := pattern.search(line))]
    yield from _joined([(number, match[1] or match[2] or "") for number, match in found])


def _joined(lines: list[tuple[int, str]]) -> Iterator[Prose]:
    """Join lines that follow each other, so that a phrase is found across a line break."""
    start, texts = 0, []
    for number, text in lines:
        if texts and number != start + len(texts):
            yield Prose(start, "\n".join(texts))
            texts = []
        start = start if texts else number
        texts.append(text)
    if texts:
        yield Prose(start, "\n".join(texts))


def headings_in(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, heading and replacement for each heading that says nothing to a search engine."""
    for number, line in enumerate(source.splitlines(), start=1):
        for pattern, instead in _HEADINGS:
            if pattern.match(line):
                yield number, line, instead


READERS = {".py": prose_of_python, ".md": prose_of_markdown, ".yml": prose_of_comments, "": prose_of_comments}


def files_of(root: Path) -> list[Path]:
    """Return the files whose prose is checked."""
    pages = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("docs/design/*.md")]
    code = [*root.glob("src/cellstamp/**/*.py"), *root.glob("configs/*.yml"), *root.glob("Makefile")]
    return sorted(pages) + sorted(code)


def check(path: Path, root: Path) -> Iterator[Finding]:
    """Yield the findings of one file."""
    source = path.read_text(encoding="utf-8")
    name = path.relative_to(root)
    headings = headings_in(source) if path.suffix == ".md" else ()
    phrases = (found for prose in READERS[path.suffix](source) for found in findings_in(prose))
    for line, phrase, instead in sorted([*headings, *phrases]):
        yield Finding(name, line, phrase, instead)


def main(arguments: list[str]) -> int:
    """Print the findings, or with --count their number for each file; return the exit status."""
    paths = [argument for argument in arguments if argument != "--count"]
    root = Path(paths[0]) if paths else Path(__file__).parents[1]
    found = [finding for path in files_of(root) for finding in check(path, root)]
    counts = Counter(finding.path for finding in found)
    lines = [f"{n:5}  {path}" for path, n in counts.most_common()] if "--count" in arguments else found
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.write(f"{len(found)} words to replace in {len(counts)} files\n" if found else "No banned words.\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
