"""Cards and layouts as pages show them."""

import re

import pytest

CARDS = ["tensor", "tensor_small", "tensor_rank4", "sparse", "wavelet", "sdf", "mesh", "model", "diffusion", "backend", "error", "hstack", "voxel_plot", "live_plot", "figure"]


def test_the_pointer_reads_index_and_value_in_a_heatmap(desk):
    page = desk.show("tensor_rank4")
    image = page.locator("img").nth(2)
    box = image.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.25 * box["height"])
    read = page.locator("[data-read]")
    page.wait_for_function("() => document.querySelector('[data-read]').textContent")
    index, value = re.fullmatch(r"\[(1, 10, \d+, \d+)\] = (.*)", read.text_content()).groups()
    _, _, row, column = map(int, index.split(", "))
    assert (row, column) == (6, 16)
    # The formula of the gallery: a slope and noise of ±4.
    assert abs(float(value) - (row + column)) <= 4
    page.mouse.move(1, 1)
    page.wait_for_function("() => !document.querySelector('[data-read]').textContent")


@pytest.mark.parametrize("dark", [False, True])
def test_text_contrasts_with_the_page(desk, dark):
    """WCAG's contrast for every piece of text in every card, opacity included: at least 4.5."""
    page = desk.show(*CARDS, dark=dark)
    poor = page.evaluate(
        """() => {
            const part = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
            const light = c => .2126 * part(c[0]) + .7152 * part(c[1]) + .0722 * part(c[2]);
            const paper = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), poor = [];
            for (let node; node = walker.nextNode();) {
                const e = node.parentElement, text = node.textContent.trim();
                if (!text || text === '·' || e.closest('script,style')) continue;
                let opacity = 1;
                for (let a = e; a; a = a.parentElement) opacity *= +getComputedStyle(a).opacity;
                const color = getComputedStyle(e)[e.closest('svg') ? 'fill' : 'color'].match(/[\\d.]+/g).slice(0, 3).map((v, i) => v * opacity + paper[i] * (1 - opacity));
                const [a, b] = [light(color), light(paper)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
                if (ratio < 4.5) poor.push(text.slice(0, 40) + ' ' + ratio.toFixed(2));
            }
            return poor;
        }"""
    )
    assert poor == []
    assert desk.requests == []


def test_no_display_is_wider_than_its_page(desk):
    page = desk.show(*CARDS)
    page.set_viewport_size({"width": 700, "height": 800})
    wide = page.evaluate("() => [...document.querySelectorAll('.output')].filter(o => o.scrollWidth > o.clientWidth + 1).map(o => o.textContent.slice(0, 40))")
    assert wide == []
