"""The kinds of sink, by the word before the ``=`` of ``lineproof run --sink``. A table is no import."""

SINKS = {
    "csv": "lineproof.line.sinks.csv_file:CsvSink",
    "jsonl": "lineproof.line.sinks.jsonl_file:JsonlSink",
}
