"""The three commands of the README, from ratings of one's own to recommendations."""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from tests.experiments.small import TIMEOUT

pytestmark = pytest.mark.slow


def commands(repository):
    """The commands of the README, as words."""
    text = (repository / "README.md").read_text()
    section = text.split("## Your ratings in, recommendations out")[1].split("\n## ")[0]
    return [
        shlex.split(line) for line in re.findall(r"^    (python -m .*)$", section, re.MULTILINE)
    ]


@pytest.fixture
def folder(tmp_path):
    """Ratings of two tastes: who likes one kind of film dislikes the other."""
    generator = np.random.default_rng(0)
    titles = ["Alien (1979)", "Babe (1995)"]
    titles += [f"{'Space' if film % 2 == 0 else 'Farm'} {film}" for film in range(2, 40)]
    lines = ["user,item,rating"]
    for user in range(120):
        for film in generator.choice(40, 25, replace=False):
            likes = film % 2 == user % 2
            lines.append(f"u{user},f{film},{(5 if likes else 1) + (-1) ** likes * (film % 3 == 0)}")
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    items = [f"f{film},{title}" for film, title in enumerate(titles)]
    (tmp_path / "items.csv").write_text("\n".join(["item,title", *items]) + "\n")
    return tmp_path


def test_the_readmes_commands_recommend_what_the_user_likes(repository, folder):
    train, recommend = commands(repository)
    for words in (train, recommend):
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=folder,
            env={"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    found = re.findall(r"(?:Space|Farm) \d+", done.stdout)
    assert len(found) == 10
    assert all(title.startswith("Space") for title in found)
