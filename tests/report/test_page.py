"""Pages hold what they are given, escaped, in one file."""

import re

import numpy as np

from lineproof.report.page import Page, write_report

EVIL = "<script>alert('x')</script> & \"quoted\""
ESCAPED = "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;quoted&quot;"


def test_everything_is_escaped(tmp_path):
    page = Page(EVIL, EVIL)
    page.heading(EVIL)
    page.verdict(EVIL, is_good=False)
    page.lines([EVIL, "second"])
    page.table((EVIL, "b"), [(EVIL, "1")])
    page.images([(np.zeros((4, 5, 3), np.uint8), EVIL)])
    page.write(tmp_path / "new" / "page.html")
    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count(ESCAPED) == 10  # title twice, lead, heading, verdict, lines, table twice, caption, alt
    assert [item.name for item in (tmp_path / "new").iterdir()] == ["page.html"]


def test_a_page_needs_nothing_else(tmp_path):
    page = Page("a", "b")
    page.images([(np.full((4, 5, 3), 200, np.uint8), "x")])
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="([^"]{0,22})', text) == ["data:image/png;base64,"]
    assert "http" not in text
    assert "@import" not in text
    assert text.startswith('<!doctype html><html lang="en"><head><meta charset="utf-8">')


def test_a_report_says_whether_it_passed(tmp_path):
    for state, kind in (("passed", "good"), ("failed", "bad"), ("undecided", "bad")):
        words = f'<p class="{kind}">{state.capitalize()}</p>'
        write_report(tmp_path / "r.html", "lineproof verify", sentences=("one", "two"), state=state)
        text = (tmp_path / "r.html").read_text()
        assert words in text
        assert re.search(r"Written by lineproof \d+\.\d+\.\d+, \d{4}-\d\d-\d\dT", text)
        assert "<pre>one\ntwo</pre>" in text
    write_report(tmp_path / "r.html", "lineproof profile", sentences=("one",))
    assert 'class="good"' not in (tmp_path / "r.html").read_text()
