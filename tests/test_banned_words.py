"""The check for words that the project's prose avoids."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

SCRIPT = Path(__file__).parents[1] / ".ci" / "banned_words.py"


@pytest.fixture
def project(tmp_path):
    for folder in ("docs/design", "src/cellstamp/source", "configs"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def check(root: Path, *options: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(root), *options],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def phrases(root: Path) -> list[str]:
    """Return file:line and phrase of each finding."""
    status, lines = check(root)
    assert status == bool(lines[:-1])
    return [line.split(": use ")[0].replace(': "', " ").rstrip('"') for line in lines[:-1]]


def test_a_clean_tree_passes(project):
    (project / "README.md").write_text("# Title\n\nInterrupted runs resume.\n")
    assert check(project) == (0, ["No banned words."])


def test_each_finding_says_where_what_and_what_instead(project):
    (project / "README.md").write_text("# Title\n\nThe run goes on.\n")
    assert check(project) == (1, ['README.md:3: "goes on": use resume, continue', "1 words to replace in 1 files"])


def test_counts_are_given_for_each_file(project):
    (project / "docs" / "a.md").write_text("A file is whole.\nIt is written anew.\n")
    (project / "SECURITY.md").write_text("There are so many.\n")
    name = Path("docs") / "a.md"
    assert check(project, "--count") == (1, [f"    2  {name}", "    1  SECURITY.md", "3 words to replace in 2 files"])


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("A run is gone on with.", "gone on"),
        ("The page tells how.", "tells"),
        ("Errors are told at once.", "told"),
        ("It appears when it is whole.", "is whole"),
        ("The whole file is read.", "whole file"),
        ("Write it anew.", "anew"),
        ("That does not mend it.", "mend"),
        ("It is dear.", "dear"),
        ("After so many seconds.", "so many"),
        ("The value is no integer.", "is no integer"),
        ("A process of its own.", "of its own"),
        ("The file that is there stays.", "that is there"),
        ("What is there stays.", "What is"),
        ("See what is below.", "what is"),
        ("The file stays as it is.", "as it is"),
        ("Stored as they are; nothing changes.", "as they are"),
        ("It takes some 23,000 cells.", "some 23,000"),
        ("It takes some twenty seconds.", "some twenty"),
        ("See what stands below.", "stands below"),
        ("A stamp for each cell.", "stamp"),
        ("Two Stamps.", "Stamps"),
        ("Nothing half-made has a name.", "half-made"),
        ("A file gets its name last.", "gets its name"),
        ("The file is made aside.", "made aside"),
        ("It hangs together.", "hangs together"),
        ("A mask of yes and no.", "yes and no"),
        ("Python holds threads up.", "holds threads up"),
        ("Half as dear again.", "Half as dear again"),
        ("A run that was ended.", "run that was ended"),
        ("It names each fault.", "fault"),
        ("Compared is scportrait.", "Compared is"),
        ("The result on its way.", "on its way"),
    ],
)
def test_phrases_are_found(text, phrase, project):
    (project / "README.md").write_text(f"{text}\n")
    assert f"README.md:1 {phrase}" in phrases(project)


@pytest.mark.parametrize(
    "text",
    [
        "cellstamp and timestamp and STAMP are names; so are `stamp`, ``what is``, [a link](stamps.png).",
        "See <https://example.org/what is told> or https://example.org/stamps.",
        "There is no mask. There can be no mask. It is no longer there.",
        "A network tells cells apart. Tell nuclei and cells apart.",
        "What is a mask?",
        "Ids are whole numbers. The whole image is read.",
        "Some cells are removed, some of them twice.",
        "A segmentation fault. Run `make faults`.",
        "As it is read, the file is checked.",
        "Amending and endearing words. A default.",
        "Step on the mat. Go online.",
    ],
)
def test_what_only_looks_like_a_phrase_is_left_alone(text, project):
    (project / "README.md").write_text(f"{text}\n")
    assert phrases(project) == []


@pytest.mark.parametrize("heading", ["On", "Nothing waits in memory", "The way of the data"])
def test_headings_that_nobody_searches_for_are_found(heading, project):
    (project / "README.md").write_text(f"Text\n\n## {heading}\n")
    assert phrases(project) == [f"README.md:3 ## {heading}"]


def test_a_phrase_is_found_across_a_line_break(project):
    (project / "README.md").write_text("One line.\nThe run is gone\non with.\n")
    (project / "src/cellstamp/a.py").write_text("# The run is gone\n# on with.\n")
    code = str(Path("src/cellstamp/a.py"))
    assert phrases(project) == ["README.md:2 gone on", f"{code}:1 gone on"]


def test_in_markdown_code_is_left_alone_but_its_comments_and_admonitions_are_not(project):
    text = """---
title: a page
---

```{code-cell} ipython3
stamp = what_is("what is")  # a stamp
# written anew
```

```{warning}
It is dear.
```

:::{tip}
It is whole.
:::

Anew.
"""
    (project / "docs" / "page.md").write_text(text)
    name = str(Path("docs/page.md"))
    found = [f"{name}:6 stamp", f"{name}:7 anew", f"{name}:11 dear", f"{name}:15 is whole", f"{name}:18 Anew"]
    assert phrases(project) == found


def test_in_python_docstrings_messages_and_comments_are_checked(project):
    text = '''"""Cut stamps.

What is cut is written anew.
"""

KEY = "stamp"  # a word alone is a key


def stamp(stamps, name):
    """Cut.

    Parameters
    ----------
    stamps
        The crops.
    name : a stamp
        As ``stamp`` says.
    """
    # the run goes on
    raise ValueError(f"{name} is no integer: {stamps!r} was "
                     "gone " f"on with {stamps['what is it']}")
'''
    (project / "src/cellstamp/source/a.py").write_text(text)
    name = str(Path("src/cellstamp/source/a.py"))
    assert phrases(project) == [
        f"{name}:1 stamps",
        f"{name}:3 What is",
        f"{name}:3 anew",
        f"{name}:19 goes on",
        f"{name}:20 gone on",
        f"{name}:20 is no integer",
        f"{name}:21 what is",
    ]


def test_in_configurations_comments_are_checked_and_values_are_not(project):
    (project / "configs/a.yml").write_text('stamp: "what is"  # told\n# as it is.\n')
    name = str(Path("configs/a.yml"))
    assert phrases(project) == [f"{name}:1 told", f"{name}:2 as it is"]


def test_help_texts_of_the_makefile_are_checked(project):
    (project / "Makefile").write_text('help:\n\t@echo "make it  makes it anew"\n\ttouch stamp\n')
    assert phrases(project) == ["Makefile:2 anew"]


def test_every_kind_of_file_is_checked(project):
    names = ["README.md", "CHANGELOG.md", "docs/a.md", "docs/design/b.md", "src/cellstamp/c.py", "configs/d.yml"]
    for name in names:
        (project / name).write_text("# told of it\n")
    assert sorted(phrases(project)) == sorted(f"{Path(name)}:1 told" for name in names)
