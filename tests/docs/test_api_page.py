"""The page of public names has them all, and is the one that the code gives."""

import fedrecon as fr
from docs.tools import api_page


def test_the_page_is_up_to_date(repository):
    page = (repository / "docs" / "api.md").read_text(encoding="utf-8")
    assert page == api_page.page(), "run python -m docs.tools.api_page"


def test_every_public_name_is_on_the_page():
    names = [name for group in api_page.public_names().values() for name in group]
    assert sorted(names) == fr.__all__
