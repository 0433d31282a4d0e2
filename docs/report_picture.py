"""Makes docs/report.svg, the picture in the README, from a report that nightshift-sim wrote.

usage: python3 docs/report_picture.py nightshift-run/report.html docs/report.svg

Everything in the picture is the report's own: title, figures, plots, settings and both palettes. This script places them
beside each other, and writes colors out, because not every viewer of SVG reads variables of CSS. Standard library only.
"""
import html
import re
import sys
from pathlib import Path

WIDTH, MARGIN, GAP = 1000, 36, 32
COLUMN = (WIDTH - 2 * MARGIN - GAP) / 2
PLOT_WIDTH, PLOT_HEIGHT = 640, 310
SANS = 'system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif'
SERIF = '"Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", Georgia, serif'

# What the page's own style says of the rest of the page, for the texts that are placed here.
TEXTS = f"""
.paper {{ fill: var(--paper); }}
.rule {{ stroke: var(--rule); }}
text {{ font-family: {SANS}; }}
.title {{ font: 600 28px {SERIF}; fill: var(--ink); }}
.under {{ font: 16px {SERIF}; fill: var(--soft); }}
.figure {{ font-size: 26px; fill: var(--ink); }}
.name {{ font-size: 13px; fill: var(--soft); }}
.heading {{ font: 600 18px {SERIF}; fill: var(--ink); }}
.term {{ font-size: 14px; fill: var(--soft); }}
.value {{ font-size: 14px; fill: var(--ink); }}
.plot {{ font-size: 17px; }}
.plot .thin {{ display: none; }}
"""


def one(pattern, page, what):
    found = re.search(pattern, page, re.DOTALL)
    if not found:
        sys.exit(f"the report has no {what}: was it written by another version?")
    return found


def plain(markup):
    """The text of some markup."""
    return html.unescape(re.sub(r"<[^>]+>", "", markup)).strip()


def palettes(style):
    """The variables of the light scheme, and of the dark one where it differs."""
    light, dark = [
        dict(re.findall(r"--([a-z-]+): ([^;]+);", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    ]
    return light, light | dark


def rules(style):
    """The page's rules for plots, as they hold on a phone: where a plot is as small as here."""
    own = re.findall(r"^svg (\.?[a-z-]+) (\{[^}]*\})", style, re.MULTILINE)
    return "\n".join(f".plot {selector} {body}" for selector, body in own)


def colored(style, palette):
    return re.sub(r"var\(--([a-z-]+)\)", lambda name: palette[name[1]], style)


def lines(words, most):
    """Words in lines of at most so many letters."""
    done = [""]
    for word in words.split():
        if done[-1] and len(done[-1]) + 1 + len(word) > most:
            done.append("")
        done[-1] = f"{done[-1]} {word}".strip()
    return done


def text(kind, x, y, words):
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{html.escape(words, quote=False)}</text>'


def picture(page):
    style = one(r"<style>(.*?)</style>", page, "style")[1]
    light, dark = palettes(style)
    shown = rules(style) + TEXTS

    title = plain(one(r"<h1>(.*?)</h1>", page, "title")[1])
    under = plain(one(r'<p class="under">(.*?)</p>', page, "first paragraph")[1])
    parts = [text("title", MARGIN, 60, f"Report: {title}"), text("under", MARGIN, 88, under)]

    figures = one(r'<dl class="figures">(.*?)</dl>', page, "figures")[1]
    y = 116
    parts.append(f'<path class="rule" d="M{MARGIN} {y}H{WIDTH - MARGIN}M{MARGIN} {y + 92}H{WIDTH - MARGIN}"/>')
    entries = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", figures)
    for place, (name, figure) in enumerate(entries):
        x = MARGIN + place * (WIDTH - 2 * MARGIN) / len(entries)
        parts.append(text("figure", x, y + 38, plain(figure)))
        parts += [text("name", x, y + 60 + 17 * row, part) for row, part in enumerate(lines(plain(name), 32))]

    scale, row_height = COLUMN / PLOT_WIDTH, PLOT_HEIGHT * COLUMN / PLOT_WIDTH + 64
    top = y + 92 + 42
    plots = re.findall(r"<h2>([^<]*)</h2>\n<figure>\n<svg[^>]*>(.*?)</svg>", page, re.DOTALL)
    for place, (heading, plot) in enumerate(plots):
        x, y = MARGIN + place % 2 * (COLUMN + GAP), top + place // 2 * row_height
        # The larger circles are for the fingers of readers of the page.
        plot = re.sub(r'<circle [^>]*fill="transparent"/>', "", plot)
        parts.append(text("heading", x, y, plain(heading)))
        parts.append(f'<g class="plot" transform="translate({x:.1f} {y + 14:.1f}) scale({scale:.4f})">{plot}</g>')

    settings = one(r'<dl class="settings">(.*?)</dl>', page, "settings")[1]
    x, y = MARGIN + len(plots) % 2 * (COLUMN + GAP), top + len(plots) // 2 * row_height
    parts.append(text("heading", x, y, "Settings"))
    y += 32
    for name, value in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", settings):
        parts.append(text("term", x, y, plain(name)))
        for part in lines(plain(value), 36):
            parts.append(text("value", x + 165, y, part))
            y += 19
    height = max(y + 20, top + (len(plots) + 1) // 2 * row_height - 30)

    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(title)}">',
        f"<style>{colored(shown, light)}",
        f"@media (prefers-color-scheme: dark) {{{colored(shown, dark)}}}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height:.0f}" rx="10"/>',
        *parts,
        "</svg>\n",
    ])


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    page = Path(sys.argv[1]).read_text(encoding="utf-8")
    Path(sys.argv[2]).write_text(picture(page), encoding="utf-8")


if __name__ == "__main__":
    main()
