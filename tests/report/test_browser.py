"""The page in a browser: it fits the screen, its texts do not overlap, nothing is complained of."""

import contextlib
import html
import json
import os
import re
import shutil

import pytest
from tests.processes import run

WIDTHS = (390, 1280)
# The page, twice, in frames as wide as a phone and as a desk; then what is found in them.
WRAPPER = """<!DOCTYPE html><html><body>
{frames}
<script>
const meet = (a, b) =>
  a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;

function lookAtFigure(figure, style, found) {
  const edge = figure.getBoundingClientRect(), scale = edge.width / figure.viewBox.baseVal.width;
  found.figures.push([edge.width, edge.height]);
  const texts = [...figure.querySelectorAll("text")];
  const boxes = texts.map((text) => text.getBoundingClientRect());
  texts.forEach((text, i) => {
    found.smallest = Math.min(found.smallest, scale * parseFloat(style(text).fontSize));
    if (boxes[i].left < edge.left - 1 || boxes[i].right > edge.right + 1)
      found.cut.push(text.textContent);
    for (let k = 0; k < i; k++)
      if (meet(boxes[i], boxes[k]))
        found.overlaps.push(texts[k].textContent + " | " + text.textContent);
  });
}

function look(frame) {
  const page = frame.contentDocument, root = page.documentElement;
  const style = (element) => frame.contentWindow.getComputedStyle(element);
  const found = {figures: [], cut: [], overlaps: [], smallest: 99};
  found.room = root.clientWidth;
  found.taken = root.scrollWidth;
  for (const figure of page.querySelectorAll("svg")) lookAtFigure(figure, style, found);
  const first = page.querySelector("a, button, summary, [tabindex='0']");
  first.focus();
  found.first = first.className;
  found.ring = style(first).outlineStyle;
  found.shown = first.getBoundingClientRect().left >= 0;
  page.querySelectorAll("details").forEach((part) => part.open = true);
  found.takenOpen = root.scrollWidth;
  found.background = style(page.body).backgroundColor;
  return found;
}

onload = () => {
  const found = JSON.stringify([...document.querySelectorAll("iframe")].map(look));
  document.body.replaceChildren(document.createElement("pre"));
  document.querySelector("pre").textContent = found;
};
</script></body></html>"""


@pytest.fixture(scope="session")
def browser():
    """The path of Chromium, a package of the system's."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    message = "no Chromium found, which the tests of the report's page need: install chromium"
    return (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


def look(browser, page, folder, *options):
    """What the script above finds at each width, and what the browser's console says."""
    source = html.escape(page, quote=True)
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{source}"></iframe>' for width in WIDTHS
    )
    (folder / "wrapper.html").write_text(WRAPPER.replace("{frames}", frames))
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
        f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000", *options, "--dump-dom",
        (folder / "wrapper.html").as_uri(),
    ]  # fmt: skip
    done = opened(command)
    found = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)[1]))
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return dict(zip(WIDTHS, found, strict=True)), console


def opened(command):
    """The browser's run; begun again where it hangs, which tells nothing about the page."""
    for _ in range(3):
        with contextlib.suppress(TimeoutError):
            done = run(*command, seconds=100)
            assert done.returncode == 0, done.stderr
            return done
    pytest.fail("the browser hung three times")


@pytest.fixture(scope="session")
def seen(browser, page, tmp_path_factory):
    return look(browser, page, tmp_path_factory.mktemp("browser"))


def test_the_console_is_silent(seen):
    _, console = seen
    assert console == []


@pytest.mark.parametrize("width", WIDTHS)
def test_fits_the_width(seen, width):
    found = seen[0][width]
    assert width - 20 <= found["room"] <= width  # but for a scroll bar
    assert found["taken"] <= found["room"]
    assert found["takenOpen"] <= found["room"]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_figure_is_there_and_can_be_read(seen, width):
    found = seen[0][width]
    assert len(found["figures"]) == 17
    assert all(wide >= 250 and high >= 80 for wide, high in found["figures"])
    assert found["smallest"] >= 10  # pixels
    assert found["cut"] == []
    assert found["overlaps"] == [], found["overlaps"]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_first_key_press_leads_past_the_navigation(seen, width):
    found = seen[0][width]
    assert found["first"] == "skip"
    assert found["shown"]
    assert found["ring"] == "solid"


def test_dark_where_the_reader_has_it_dark(seen, browser, page, tmp_path):
    light = seen[0][390]["background"]
    dark = look(browser, page, tmp_path, "--blink-settings=preferredColorScheme=0")[0][390]
    assert (light, dark["background"]) == ("rgb(244, 245, 247)", "rgb(15, 18, 22)")
