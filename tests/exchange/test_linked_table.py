# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Linked tables: selections and highlights, in both directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import from_table
from astropy.table import Table

from pyvo.samp import SAMPIntegratedClient, SAMPTypeError, SAMPValueError, SAMPWarning
from pyvo.samp.exchange import linked_table

Pair = tuple[SAMPIntegratedClient, SAMPIntegratedClient]


class Viewer:
    """A client that behaves like TOPCAT."""

    def __init__(self, client: SAMPIntegratedClient) -> None:
        self.client = client
        self.rows: list[Any] = []
        self.rejections = 0
        client.on("table.load.votable")(self.load)
        client.on("table.select.rowList")(self.select)
        client.on("table.highlight.row")(self.highlight)

    def load(self, table: Table, table_id, url) -> None:
        self.table, self.table_id, self.url = table, table_id, url

    def select(self, table_id, url, row_list: list[int]) -> None:
        assert (table_id, url) == (self.table_id, self.url)
        self.rows.append(row_list)

    def highlight(self, table_id, row: int) -> None:
        if self.rejections:
            self.rejections -= 1
            raise ValueError("No table with that id")
        self.rows.append(row)

    def call(self, mtype: str, to: str = "alice", **params: Any) -> Any:
        return self.client.ecall_and_wait(to, mtype, 10, **params)


@pytest.fixture
def viewer(pair: Pair) -> Viewer:
    return Viewer(pair[1])


def test_tables_of_all_kinds(pair: Pair, table: Table, tmp_path: Path) -> None:
    """A link has the rows of the table, for each type of object and file that contains a table."""
    alice, bob = pair
    path = tmp_path / "cat.fits"
    table.write(path)
    table["name", "ra"].write(tmp_path / "cat.csv")
    hdu = fits.BinTableHDU(table)
    with bob.incoming("table.load.*") as queue:
        for obj in (path, str(path), tmp_path / "cat.csv", hdu, fits.HDUList([fits.PrimaryHDU(), hdu]),
                    from_table(table), np.asarray(table[["ra"]]), table[0]):
            with alice.link(obj, to="bob") as link:
                rows = len(queue.get(10))
                assert link.selection.tolist() == [False] * rows
                assert rows == (1 if obj.__class__.__name__ == "Row" else 3)


def test_only_tables_can_be_linked(pair: Pair) -> None:
    """An object that is not a table is rejected, and nothing is sent."""
    alice, bob = pair
    with bob.incoming("*") as queue:
        with pytest.raises(SAMPTypeError, match="Only tables can be linked, but 'image' is sent as image"):
            alice.link(np.zeros((3, 3)), to="bob")
        assert len(queue) == 0


def test_invalid_row_numbers(pair: Pair, viewer: Viewer, table: Table) -> None:
    with pair[0].link(table, to="bob") as link:
        for rows in ([1.5], ["a"], [None]):
            with pytest.raises(SAMPValueError, match="by row numbers or a mask"):
                link.select(rows)
        assert link.select([]).ok
        assert viewer.rows == [[]]


def test_a_selection_of_the_viewer_is_a_mask_of_the_link(pair: Pair, viewer: Viewer, table: Table) -> None:
    alice = pair[0]
    with alice.link(table, to="bob") as link:
        assert link.selection.tolist() == [False] * 3
        assert link.highlighted is None
        masks: list[Any] = []
        rows: list[int] = []

        @link.on_select
        def selected(mask: Any) -> None:
            masks.append(mask)

        link.on_highlight(rows.append)
        for key, value in (("table-id", link.id), ("url", viewer.url)):
            assert viewer.call("table.select.rowList", **{key: value, "row-list": [0, 2]})["samp.status"] == "samp.ok"
            assert viewer.call("table.highlight.row", **{key: value, "row": 1})["samp.status"] == "samp.ok"
        assert table[link.selection]["name"].tolist() == ["a", ""]
        assert [mask.tolist() for mask in masks] == [[True, False, True]] * 2
        assert (link.highlighted, rows) == (1, [1, 1])
        viewer.call("table.select.rowList", **{"table-id": link.id, "row-list": []})
        assert not link.selection.any()
        link.selection[:] = True  # changes a copy
        assert not link.selection.any()
        assert repr(link) == "<Link: 'Small' with Bob, 0 rows selected>"


def test_a_selection_of_the_link_is_sent_to_the_viewer(pair: Pair, viewer: Viewer, table: Table) -> None:
    link = pair[0].link(table)
    assert link.select(table["ra"] > 2).ok
    assert link.select([0, 2]).ok
    assert link.select(np.ma.array([True, True, False], mask=[False, True, False])).ok
    assert link.select([]).ok
    assert link.select(np.array([1])).ok
    assert link.highlight(0).ok
    assert link.highlight(-1).ok
    assert viewer.rows == [[1, 2], [0, 2], [0], [], [1], 0, 2]
    assert link.selection.tolist() == [False, True, False]
    assert link.highlighted == 2
    link.close()


def test_row_numbers_out_of_range(pair: Pair, viewer: Viewer, table: Table) -> None:
    link = pair[0].link(table)
    for rows in ([3], [-1], [True], np.ones(4, dtype=bool)):
        with pytest.raises(ValueError, match=r"no row|The mask has the shape"):
            link.select(rows)
    with pytest.raises(ValueError, match="There is no row 3"):
        link.highlight(3)
    for params in ({"row-list": ["3"]}, {"row-list": "1"}, {"row-list": ["x"]}, {}, {"row-list": ["-1"]}):
        response = viewer.call("table.select.rowList", **{"table-id": link.id, **params})
        assert response["samp.status"] == "samp.error"
    assert viewer.call("table.highlight.row", **{"table-id": link.id})["samp.status"] == "samp.error"
    link.close()


def test_other_tables(pair: Pair, viewer: Viewer, table: Table) -> None:
    """A link ignores a message about another table; the handler of the program receives it."""
    alice = pair[0]
    seen: list[str] = []

    @alice.on("table.select.rowList")
    def select(table_id) -> None:
        seen.append(table_id)

    first, second = alice.link(table), alice.link(table)
    viewer.call("table.select.rowList", **{"table-id": first.id, "row-list": [1]})
    viewer.call("table.select.rowList", **{"table-id": "strange", "row-list": [7]})
    assert first.selection.tolist() == [False, True, False]
    assert not second.selection.any()
    assert seen == ["strange"]
    for link in (first, second):
        link.close()
    viewer.call("table.select.rowList", **{"table-id": first.id, "row-list": [1]})
    assert seen == ["strange", first.id]


def test_a_viewer_that_does_not_know_the_table_yet(
    pair: Pair, viewer: Viewer, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TOPCAT responds shortly before it knows the table-id: the link tries again for RETRY_WINDOW."""
    link = pair[0].link(table)
    viewer.rejections = 2
    assert link.highlight(1).ok
    monkeypatch.setattr(linked_table, "RETRY_WINDOW", 0.0)
    viewer.rejections = 1
    with pytest.warns(SAMPWarning, match="Bob did not apply the highlight: No table with that id"):
        assert not link.highlight(1).ok
    link.close()


def test_a_listener_that_fails(pair: Pair, viewer: Viewer, table: Table) -> None:
    """If a listener raises, the sender of the selection gets an error response."""
    link = pair[0].link(table)
    link.on_select(lambda mask: 1 / 0)
    response = viewer.call("table.select.rowList", **{"table-id": link.id, "row-list": [1]})
    assert "division by zero" in response["samp.error"]["samp.errortxt"]
    link.close()


def test_a_listener_that_selects(pair: Pair, viewer: Viewer, table: Table) -> None:
    """A listener may send another selection."""
    link = pair[0].link(table)

    @link.on_select
    def invert(mask: Any) -> None:
        link.select(~mask)

    viewer.call("table.select.rowList", **{"table-id": link.id, "row-list": [1]})
    assert viewer.rows == [[0, 2]]
    link.close()


def test_many_rows() -> None:
    """Half a million row numbers are read like a few; an invalid number among them is rejected, too."""
    texts = [str(number) for number in range(500_000)]
    assert linked_table._row_numbers(texts) == list(range(500_000))
    assert linked_table._row_numbers(["+7", "-0", "8"]) == [7, 0, 8]
    for odd in ("", "x", "1.5", "\u0663"):
        with pytest.raises(SAMPValueError):
            linked_table._row_numbers([*texts[:1000], odd])
