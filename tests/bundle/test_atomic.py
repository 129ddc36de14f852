"""Files that a kill cannot leave half written."""

import json

from lineproof.bundle.atomic import write_json


def test_json_is_sorted_and_whole(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1.5\n  ],\n  "b": 1\n}\n'
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1.5], "b": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]
