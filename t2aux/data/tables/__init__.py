"""Reads tables in constant memory: CSV and similar formats, JSON lines and Parquet.

    table = tables.open_table("reviews.csv.gz")
    chosen = tables.choose_columns(table, label="stars")
    for batch in table.batches():
        labels, texts = tables.strings(batch, chosen.label), tables.joined(batch, chosen.texts)

What was guessed about a table (format, separator, encoding, header) is in its `notes`.
"""

from t2aux.data.tables.base import TableReader, joined, strings
from t2aux.data.tables.columns import Chosen, choose_columns
from t2aux.data.tables.opening import STEMS, SUFFIXES, is_table, open_table

__all__ = [
    "STEMS",
    "SUFFIXES",
    "Chosen",
    "TableReader",
    "choose_columns",
    "is_table",
    "joined",
    "open_table",
    "strings",
]
