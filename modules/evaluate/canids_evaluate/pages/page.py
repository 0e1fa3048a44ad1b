"""The report as one self-contained HTML page: no script, no network, figures inside."""

import base64
from pathlib import Path
from typing import Any

import jinja2

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 74rem; margin: 2rem auto; padding: 0 1.2rem; }
h1, h2, h3 { line-height: 1.2; }
h2 { margin-top: 2.6rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
p, li { max-width: 46rem; }
nav a { margin-right: 1rem; }
a { color: #005a8c; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th, td { padding: .18rem .55rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
th { border-bottom: 1px solid #555; vertical-align: bottom; white-space: normal; }
.number { text-align: right; }
tbody tr:nth-child(even) { background: #f5f5f5; }
figure { margin: 1.6rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption { font-size: .85rem; color: #444; max-width: 46rem; }
pre { font-size: .75rem; overflow-x: auto; background: #f5f5f5; padding: .6rem; }
@media print { body { max-width: none; font-size: 11pt; } figure { break-inside: avoid; } details { display: none; } }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<nav>
<a href="#short">In short</a><a href="#results">Results</a><a href="#figures">Figures</a>{% if cards %}<a href="#cards">Model cards</a>{% endif %}<a href="#provenance">Provenance</a>
</nav>
<h2 id="short">In short</h2>
{% for scenario, sentences in short.items() %}
<h3>{{ scenario }}</h3>
{% for sentence in sentences %}<p>{{ sentence }}</p>
{% endfor %}{% endfor %}
{% if overview %}<div class="wide">{{ overview.html() | safe }}</div>{% endif %}
<h2 id="results">Results</h2>
<p>{{ method }}</p>
{% for scenario in scenarios %}
<h3>{{ scenario.name }}</h3>
<p>{{ scenario.counts }}</p>
{% for caption, table in scenario.tables.items() %}
<p>{{ caption }}</p>
<div class="wide">{{ table.html() | safe }}</div>
{% endfor %}{% endfor %}
<h2 id="figures">Figures</h2>
{% for caption, image in figures.items() %}
<figure><img src="{{ image }}" alt="{{ caption }}"><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{% if cards %}<h2 id="cards">Model cards</h2>
<p>Every model: its data, its quality, and the reasons against relying on it; as files in <code>cards/</code>.</p>
{% for name, text in cards.items() %}
<details><summary>{{ name }}</summary><pre>{{ text }}</pre></details>
{% endfor %}{% endif %}
<h2 id="provenance">Provenance</h2>
<ul>
{% for name, text in facts.items() %}<li>{{ name }}: {{ text }}</li>
{% endfor %}</ul>
{% for caption, table in tables.items() %}
<h3>{{ caption }}</h3>
<div class="wide">{{ table.html() | safe }}</div>
{% endfor %}
{% if configs %}<h3>Config</h3>
{% for name, text in configs.items() %}
<details><summary>{{ name }}</summary><pre>{{ text }}</pre></details>
{% endfor %}{% endif %}
</body>
</html>
"""


def image(path: Path) -> str:
    """An SVG file as a data URI. As images, figures keep their ids to themselves; inline, they would collide."""
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def plain(sentences: dict[str, list[str]]) -> dict[str, list[str]]:
    """Sentences without Markdown's marks of code."""
    return {heading: [text.replace("`", "") for text in texts] for heading, texts in sentences.items()}


def render(**content: Any) -> str:
    """The page.

    Args:
        title: its heading.
        short: scenario → sentences.
        overview: a `Table` below the sentences, or None.
        method: how to read the tables.
        scenarios: `name`, `counts` and `tables` (caption → `Table`) of each.
        figures: caption → data URI.
        facts: provenance, name → one line.
        tables: caption → `Table` of provenance.
        configs: run → YAML.
        cards: model → its card, Markdown.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_TEMPLATE).render(content)
