import dataclasses
import re
from html.parser import HTMLParser

import pytest

from spikestrap.diagnosis import NO_CURVE
from spikestrap.report.gather import gather
from spikestrap.report.page import command, mode_rows, render
from spikestrap.train import train

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Checker(HTMLParser):
    """Every element is closed, in order; ids are unique and links lead to one."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.links, self.tags = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        assert all(link[1:] in self.ids for link in self.links)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if "href" in attributes:
            self.links.append(attributes["href"])

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_is_well_formed_and_accessible(page):
    checked = Checker(page)
    tags = [tag for tag, _ in checked.tags]
    assert page.startswith("<!DOCTYPE html>\n<html lang=")
    figures = [attributes for tag, attributes in checked.tags if tag == "svg"]
    # Training, event rates, two a unit, accuracy over T, confusion, examples, operations.
    assert len(figures) == 2 + 2 * 3 + 2 + 6 + 1
    assert all(figure["aria-label"] for figure in figures)
    assert tags.count("h1") == 1
    assert {"details", "summary", "main", "nav"} <= set(tags)
    first_link = next(attributes for tag, attributes in checked.tags if tag == "a")
    assert first_link == {"class": "skip", "href": "#main"}


def test_needs_nothing_else(page):
    assert len(page.encode()) < 3 * 2**20
    links = page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|//|<script|<link|<img|<iframe|@import|url\(|\son\w+=", links)


def test_says_what_the_run_gave(report, page):
    result = report.records.result
    for text in (
        f"{result.snn_accuracy:.2f} <small>%",
        f"{result.ann_accuracy:.2f} <small>%",
        f"{result.gap:+.2f} <small",
        f"{result.event_rate:.3f} <small",
        f"<td>{report.records.epochs[1].loss:.4f}</td>",
        "all 450 test images",
        "digits-mlp <small>T = 4, seed 0",
        f"<dt>torch</dt><dd>{report.config['versions']['torch']}",
    ):
        assert text in page, text
    assert "speed-up" not in page


def test_the_speed_up_is_shown_where_it_was_compared(report):
    page = render(dataclasses.replace(report, speed_up=3.456))
    assert "<dt>speed-up</dt><dd>3.5 " in page


def test_where_the_time_went(report):
    rows = {row.mode: row for row in mode_rows(report)}
    assert (rows["sample"].steps, rows["fit"].steps) == (5, 1)
    assert rows["evaluation"].milliseconds is None
    assert max(row.share for row in rows.values()) == 1
    epochs = report.records.epochs
    paces = [1000 * epoch.seconds_by_mode["ann"] / epoch.steps["ann"] for epoch in epochs]
    assert rows["ann"].milliseconds == pytest.approx(min(paces))  # the other compiled
    old = [dataclasses.replace(epoch, seconds_by_mode={}) for epoch in epochs]
    records = dataclasses.replace(report.records, epochs=old)
    rows = {row.mode: row for row in mode_rows(dataclasses.replace(report, records=records))}
    spent = report.records.result.seconds["ann"]
    assert rows["ann"].milliseconds == pytest.approx(1000 * spent / rows["ann"].steps)


def test_it_says_what_ran(report, page):
    steps = [epoch.steps for epoch in report.records.epochs]
    anns = sum(of["ann"] for of in steps)
    assert f"<p>Steps that ran the network as an ANN, on curves: {anns}; that sampled" in page
    assert "that sampled the network as an SNN (SAMPLE): 5; that fitted the curves to the" in page
    assert "that trained the network as an SNN" not in page


def test_a_run_that_trained_as_an_snn_shows_no_curves(report):
    epochs = [dataclasses.replace(e, steps={"snn": 20}) for e in report.records.epochs]
    layers = [dataclasses.replace(y, curve=None, samples=None, history=[]) for y in report.layers]
    found = {
        name: dataclasses.replace(each, fitted=False, warnings=(NO_CURVE, "dead <neurons>"))
        for name, each in report.measured.layers.items()
    }
    page = render(
        dataclasses.replace(
            report,
            layers=layers,
            records=dataclasses.replace(report.records, epochs=epochs),
            measured=dataclasses.replace(report.measured, layers=found),
        )
    )
    Checker(page)
    assert "<p>Steps that trained the network as an SNN: 40.</p>" in page
    assert page.count('<p class="warning">dead &lt;neurons&gt;</p>') == len(layers)
    for text in ("Mode.SAMPLE", "what the ANN runs", "sampled in training", "</i>curve<"):
        assert text not in page, text


def test_its_command_trains_the_same_again(report, tmp_path):
    words = command(report).split()
    assert words[:3] == ["spikestrap", "train", "digits-mlp"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    again = train(
        "digits-mlp",
        time_steps=int(options["--time-steps"]),
        epochs=int(options["--epochs"]),
        batch_size=int(options["--batch-size"]),
        learning_rate=float(options["--learning-rate"]),
        seed=int(options["--seed"]),
        out=tmp_path,
    )
    assert again["snn_accuracy"] == report.records.result.snn_accuracy


def test_its_command_names_the_patience_if_there_was_one(report):
    assert "--patience" not in command(report)
    options = {**report.config["options"], "patience": 3}
    patient = dataclasses.replace(report, config={**report.config, "options": options})
    assert "--patience 3" in command(patient)


def test_a_precision_other_than_the_recipes_is_named(report):
    assert "--chip" not in command(report)
    assert "--chip loihi" in command(dataclasses.replace(report, precision="loihi"))


def test_the_precision_of_the_training_is_named_where_it_is_not_the_usual_one(report):
    assert report.config["training_precision"] == "32-true"
    assert "--precision" not in command(report)
    halves = {**report.config, "training_precision": "bf16-mixed"}
    assert "--precision bf16-mixed" in command(dataclasses.replace(report, config=halves))


def test_without_test_images_and_without_a_history(run):
    (run / "curves.json").unlink()
    report = gather(run, evaluate=False)
    page = render(report)
    checked = Checker(page)
    assert sum(tag == "svg" for tag, _ in checked.tags) == 1 + 3
    assert "test image" not in page.partition("<main")[2].replace("test images right", "")


def test_what_a_run_says_is_text_not_html(run, edit):
    evil = "<script>alert(1)</script>"
    edit(run / "config.json", lambda c: c.update(versions={evil: evil}, options={evil: evil}))
    edit(run / "history.json", lambda h: h["epochs"][0].update(steps={evil: 3}))
    edit(run / "history.json", lambda h: h["epochs"][0]["seconds_by_mode"].update({evil: 1.0}))
    edit(run / "result.json", lambda r: r["seconds"].update({evil: 1.0}))
    edit(run / "curves.json", lambda c: c["curves"][0].update(unit=evil))
    evil_class = 'x" onload="alert(1)'
    edit(run / "history.json", lambda h: h["epochs"][1]["seconds_by_mode"].update({evil_class: 1}))
    page = render(gather(run, evaluate=False))
    checked = Checker(page)
    assert "<script" not in page
    assert not any("onload" in attributes for _, attributes in checked.tags)


def contrast(one, other):
    """Of two colours #rrggbb, as WCAG 2 has it."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_text_is_readable_in_both_themes(page, theme):
    found = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(
        r":root \{(.*?)\}", page, re.DOTALL
    )]  # fmt: skip
    colours = found[theme]
    for name in ("ink", "soft", "snn", "ann", "sample", "fit", "evaluation"):
        for ground in ("page", "card"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
