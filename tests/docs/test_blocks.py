"""Each block of the pages is run, on small data, or says why not."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.docs import small
from tests.docs.blocks import blocks_of

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted(["README.md", *(f"docs/{path.name}" for path in REPOSITORY.glob("docs/*.md"))])
# First the pages whose runs others use.
FOLLOWED = sorted(PAGES, key=lambda page: page not in ("README.md", "docs/tutorial.md"))
LANGUAGES = ("shell", "python", "text")
OF_ABSL = ("flagfile", "help")


def read(page):
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks(page):
    return blocks_of(page, read(page))


def is_elsewhere(words):
    return any(tuple(words[: len(start)]) == start for start in small.ELSEWHERE)


def is_runnable(words):
    is_ours = words[:2] == ["python", "-m"] and words[2].startswith("experiments.")
    return is_ours or words[:2] == ["python", "examples/on_device.py"]


def flags_of(command):
    """The flags of a command, by the page that is generated from the code."""
    page = read("docs/flags.md")
    settings, of_commands = page.split("## Flags of single commands")
    names = set()
    if command in ("train", "compare", "tune"):
        names |= set(re.findall(r"^### `--(\w+)`", settings, re.MULTILINE))
    if command != "train":
        (own,) = re.findall(rf"^### {command}\n(.*?)(?=^### |\Z)", of_commands, re.M | re.S)
        names |= set(re.findall(r"^#### `--(\w+)`", own, re.MULTILINE))
    return names


def test_blocks_are_found_with_their_reasons():
    commands = "    make a && \\\n      make b  # why\n"
    text = f"Say:\n\n{commands}\n<!-- not run: slow -->\n\n```python\n1\n```\n"
    shell, python = blocks_of("page", text)
    assert shell.commands() == [["make", "a"], ["make", "b"]]
    assert (shell.reason, shell.line) == (None, 3)
    assert (python.language, python.text, python.reason) == ("python", "1", "slow")


@pytest.mark.parametrize("page", PAGES)
def test_each_block_says_what_it_is(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block}: a fence names one of {LANGUAGES}"
        if block.language == "shell":
            for words in block.commands():
                known = is_runnable(words) or is_elsewhere(words) or block.reason
                assert known, f"{block}: {words} is no command that the test knows"


@pytest.mark.parametrize("page", PAGES)
def test_the_flags_of_each_command_exist(page):
    for block in blocks(page):
        if block.language != "shell":
            continue
        for words in block.commands():
            if words[:1] == ["make"]:
                assert f"\n{words[1]}:" in read("Makefile"), words
            if words[:2] != ["python", "-m"] or not words[2].startswith("experiments."):
                continue
            known = flags_of(words[2].removeprefix("experiments."))
            for word in words[3:]:
                if words[2] == "experiments.report" and not word.startswith("--"):
                    continue  # A directory.
                assert word.startswith("--"), f"{block}: {word}"
                name, _, value = word[2:].partition("=")
                if name == "flagfile":
                    assert (REPOSITORY / value).is_file(), f"{block}: {word}"
                elif name not in OF_ABSL:
                    assert name in known or name.removeprefix("no") in known, f"{block}: {word}"


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_can_be_parsed(page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, str(block), "exec")


def steps_of(page):
    """The steps of a page: its commands and its Python, small."""
    steps = []
    for block in blocks(page):
        if block.reason is None and block.language == "python":
            steps.append({"python": small.python(block.text), "label": str(block)})
        if block.reason is None and block.language == "shell":
            found = [small.command(words) for words in block.commands() if is_runnable(words)]
            steps += [{"command": words, "label": " ".join(words)} for words in found]
    return [{**step, "page": page} for step in steps]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """For each page its steps and their outcomes, from one process that runs them all.

    The pages share a folder, as they do for somebody who follows them all.
    """
    folder = tmp_path_factory.mktemp("pages")
    small.write_files(folder, blocks("docs/own_model.md"))
    for name in ("experiments", "examples"):
        (folder / name).symlink_to(REPOSITORY / name)
    steps = [step for page in FOLLOWED for step in steps_of(page)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.run_steps"],
        input=json.dumps(steps),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=1_800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5_000:]
    pairs = list(zip(steps, json.loads(done.stdout)))
    return {page: [pair for pair in pairs if pair[0]["page"] == page] for page in FOLLOWED}


@pytest.mark.slow
@pytest.mark.parametrize("page", FOLLOWED)
def test_the_commands_and_the_python_of_a_page_run(page, outcomes):
    errors = [
        f"{step['label']}\n{outcome['error']}"
        for step, outcome in outcomes[page]
        if outcome["error"] != small.expected_error(step.get("command", []))
    ]
    assert not errors, "\n\n".join(errors)
