# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Look at every page in Chromium: ``python docs/look.py [PAGE]...``, in a checkout with a built ``docs/_build/html``.

Each page is opened at 1280 and 400 pixels. What is wider than the window, what covers the navigation, and pictures that
are missing or smaller than half their size at 1280 pixels are printed. The screenshots are in ``build/look``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
HTML = ROOT / "docs" / "_build" / "html"
SHOTS = ROOT / "build" / "look"
sys.path.insert(0, str(ROOT))

from tests.interop.browser import Browser, Page  # noqa: E402
from tests.interop.programs import environment  # noqa: E402

#: Made by Sphinx, or a page that talks to a hub.
NOT_PAGES = {"genindex.html", "notebook.html", "py-modindex.html", "search.html"}
#: What is wrong with a page, as a list of texts.
FAULTS = """(() => {
    const width = window.innerWidth, found = [];
    const name = (e) => `${e.tagName.toLowerCase()}.${e.className} "${(e.innerText || e.alt || "").slice(0, 40)}"`;
    const hides = (e) => ["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX);
    const scrolls = (e) => e && (hides(e) || scrolls(e.parentElement));
    if (document.scrollingElement.scrollWidth > width) {
        const wide = [...document.querySelectorAll("main *")].filter(
            (e) => e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement));
        found.push(`wider than the window: ${wide.slice(0, 2).map(name)}`);
    }
    const visible = (e) => e && e.getBoundingClientRect().width > 0;
    const brand = document.querySelector("header .navbar-brand");
    const first = document.querySelector("header .navbar-nav a");
    if (visible(brand) && visible(first)) {
        const end = (brand.querySelector(".title") ?? brand).getBoundingClientRect().right;
        if (end > first.getBoundingClientRect().left) found.push("the title covers the navigation");
    }
    for (const image of document.querySelectorAll("main img")) {
        const isSmall = image.naturalWidth > 64 && image.width < 0.5 * image.naturalWidth;
        if (!image.naturalWidth) found.push(`missing: ${image.src}`);
        else if (width > 1000 && isSmall) found.push(`small: ${image.src}`);
    }
    return found;
})()"""


def look(page: Page, path: Path, width: int) -> list[str]:
    """Return what is wrong with a page, and take a screenshot of it."""
    page.act("page", "setViewportSize", {"width": width, "height": 900})
    page.go(path.as_uri())
    faults: list[str] = page.evaluate(FAULTS)
    height = min(5000, int(page.evaluate("document.scrollingElement.scrollHeight")))
    page.act("page", "setViewportSize", {"width": width, "height": height})
    shown = str(path.relative_to(HTML).with_suffix("")).replace("/", "-")
    page.screenshot(SHOTS / f"{shown}-{width}.png")
    return faults


def main(names: list[str]) -> int:
    """Look at these pages, or at all; return the number of faults."""
    executable = shutil.which("chromium")
    if executable is None:
        raise SystemExit("Chromium is not installed (tests/interop/install does it)")
    paths = [HTML / f"{name}.html" for name in names] or sorted(HTML.rglob("*.html"))
    paths = [path for path in paths if path.name not in NOT_PAGES]
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(executable, Path(folder), environment(Path(folder)))
        try:
            page = browser.open("about:blank")
            for path in paths:
                for width in (1280, 400):
                    for fault in look(page, path, width):
                        count += 1
                        print(f"{path.relative_to(HTML)} at {width}: {fault}")
        finally:
            browser.stop()
    print(f"{len(paths)} pages, {count} faults")
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
