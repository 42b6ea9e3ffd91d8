"""An OpenAPI document as one page to read: plain HTML without a script, so that nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

METHODS = ("get", "put", "post", "delete")
STYLE = """
:root { color-scheme: light dark; --text: #12211f; --quiet: #4b5b59; --line: #d5dcdb; --raised: #f0f4f3; --back: #fff; --accent: #0b6b60; }
@media (prefers-color-scheme: dark) { :root { --text: #e6efed; --quiet: #a5b4b1; --line: #33423f; --raised: #1a2725; --back: #101a18; --accent: #6fd3c4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; background: var(--back); color: var(--text); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0; } h2 { margin: 2.5rem 0 0.5rem; } h3 { margin: 0; font-size: 1.05rem; } h4 { margin: 1rem 0 0.25rem; font-size: 0.95rem; }
a { color: var(--accent); } a:focus-visible, summary:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
code { font: 0.9em ui-monospace, monospace; background: var(--raised); padding: 0.1em 0.3em; border-radius: 4px; }
section.one { border: 1px solid var(--line); border-radius: 10px; padding: 0.9rem 1rem; margin: 0.8rem 0; }
.method { display: inline-block; min-width: 4.2rem; font: 700 0.85rem ui-monospace, monospace; color: var(--accent); }
.quiet { color: var(--quiet); } p { margin: 0.3rem 0; }
ul.fields { list-style: none; margin: 0.2rem 0; padding: 0 0 0 0.8rem; border-left: 2px solid var(--line); } ul.fields li { margin: 0.3rem 0; }
nav ul { columns: 18rem; padding-left: 1.1rem; margin: 0; } nav li { margin: 0.25rem 0; min-height: 1.6rem; }
"""


def build_content_security_policy() -> str:
    """What the page may do: nothing but look as it does."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


class OpenApiHtml:
    """The page of one document.

    Args:
        document: OpenAPI 3.1, with references into itself only.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def to_html(self) -> str:
        """The whole page."""
        info = self._document["info"]
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{_text(info['title'])}: HTTP API</title><style>{STYLE}</style></head><body>"
            f"<header><h1>{_text(info['title'])}: HTTP API</h1>"
            f'<p class="quiet">{_text(info.get("summary", ""))} Version {_text(info["version"])}, '
            f'<a href="openapi.json">as OpenAPI {_text(self._document["openapi"])}</a></p></header>'
            f"<main><p>{_prose(info.get('description', ''))}</p>{self._contents()}"
            f"{''.join(self._groups())}<h2>Who calls</h2>{''.join(self._schemes())}"
            f"<h2>Shapes</h2>{''.join(self._shapes())}</main></body></html>\n"
        )

    def _operations(self) -> Iterator[tuple[str, str, Mapping[str, Any], list[Mapping[str, Any]]]]:
        for path, item in self._document["paths"].items():
            shared = item.get("parameters", [])
            for method in METHODS:
                if method in item:
                    one = item[method]
                    yield (
                        method,
                        path,
                        one,
                        [*map(self._found, shared), *map(self._found, one.get("parameters", []))],
                    )

    def _contents(self) -> str:
        lines = (
            f'<li><a href="#{_text(one["operationId"])}">{_text(one["summary"])}</a></li>'
            for _, _, one, _ in self._operations()
        )
        return f'<nav aria-label="Operations"><ul>{"".join(lines)}</ul></nav>'

    def _groups(self) -> Iterator[str]:
        for tag in self._document["tags"]:
            yield f"<h2>{_text(tag['name'].capitalize())}</h2><p>{_prose(tag.get('description', ''))}</p>"
            for method, path, one, parameters in self._operations():
                if tag["name"] in one.get("tags", []):
                    yield self._operation(method, path, one, parameters)

    def _operation(
        self, method: str, path: str, one: Mapping[str, Any], parameters: list[Mapping[str, Any]]
    ) -> str:
        parts = [
            f'<section class="one" id="{_text(one["operationId"])}">',
            f'<h3><span class="method">{method.upper()}</span> <code>{_text(path)}</code></h3>',
            f"<p>{_prose(one['summary'])} {_prose(one.get('description', ''))}</p>",
        ]
        if one.get("security") == []:
            parts.append('<p class="quiet">Open to all.</p>')
        if parameters:
            fields = "".join(
                self._field(
                    f"{each['name']} ({each['in']})", each["schema"], each.get("required", False), each
                )
                for each in parameters
            )
            parts.append(f"<h4>Parameters</h4>{_fields(fields)}")
        if "requestBody" in one:
            parts.append(f"<h4>Body</h4>{self._content(self._found(one['requestBody']))}")
        parts.append(f"<h4>Answers</h4>{_fields(''.join(self._answers(one)))}</section>")
        return "".join(parts)

    def _answers(self, one: Mapping[str, Any]) -> Iterator[str]:
        for status, given in one["responses"].items():
            answer = self._found(given)
            headers = "".join(
                f"<li>header <code>{_text(name)}</code> {_prose(header.get('description', ''))}</li>"
                for name, header in answer.get("headers", {}).items()
            )
            said = f"<strong>{_text(status)}</strong> {_prose(answer['description'])}"
            yield f"<li>{said}{_fields(headers)}{self._content(answer)}</li>"

    def _content(self, holder: Mapping[str, Any]) -> str:
        lines = (
            f"<li><code>{_text(kind)}</code> {self._schema(given['schema'])}</li>"
            for kind, given in holder.get("content", {}).items()
        )
        return _fields("".join(lines))

    def _schemes(self) -> Iterator[str]:
        for name, scheme in self._document["components"]["securitySchemes"].items():
            kind = f"{scheme['type']}, {scheme.get('scheme', '')}".rstrip(", ")
            yield f"<p><strong>{_text(name)}</strong> ({_text(kind)}): {_prose(scheme.get('description', ''))}</p>"

    def _shapes(self) -> Iterator[str]:
        for name, schema in self._document["components"]["schemas"].items():
            yield (
                f'<section class="one" id="shape-{_text(name)}"><h3>{_text(name)}</h3>{self._schema(schema)}</section>'
            )

    def _schema(self, schema: Mapping[str, Any]) -> str:
        """A schema in words, its fields below; others of the document by name."""
        if "$ref" in schema:
            name = str(schema["$ref"]).rpartition("/")[2]
            return f'<a href="#shape-{_text(name)}">{_text(name)}</a>'
        said = (
            f'<span class="quiet">{_text(_in_words(schema))}</span> {_prose(schema.get("description", ""))}'
        )
        for choice in ("oneOf", "anyOf"):
            if choice in schema:
                lines = "".join(f"<li>{self._schema(each)}</li>" for each in schema[choice])
                said += _fields(lines)
        if "items" in schema:
            said += f" of {self._schema(schema['items'])}"
        further = schema.get("additionalProperties")
        if isinstance(further, Mapping):
            said += f" from texts to {self._schema(further)}"
        required = schema.get("required", [])
        fields = "".join(
            self._field(name, each, name in required) for name, each in schema.get("properties", {}).items()
        )
        return said + _fields(fields)

    def _field(
        self, name: str, schema: Mapping[str, Any], required: bool, about: Mapping[str, Any] | None = None
    ) -> str:
        mark = " <strong>required</strong>" if required else ""
        said = _prose((about or {}).get("description", ""))
        return f"<li><code>{_text(name)}</code>{mark} {self._schema(schema)} {said}</li>"

    def _found(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a reference leads to."""
        if "$ref" not in given:
            return given
        place: Any = self._document
        for part in str(given["$ref"]).removeprefix("#/").split("/"):
            place = place[part]
        found: Mapping[str, Any] = place
        return found


# What a schema says beside its type, as words.
_WORDS = {
    "format": "{}",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} signs",
    "maxLength": "at most {} signs",
    "pattern": "like {}",
    "default": "{} if left out",
}


def _in_words(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type", "")
    words = [" or ".join(kinds) if isinstance(kinds, list) else str(kinds)]
    if "const" in schema:
        words.append(json.dumps(schema["const"]))
    if "enum" in schema:
        words.append("one of " + ", ".join(map(str, schema["enum"])))
    words += [text.format(_plain(schema[name])) for name, text in _WORDS.items() if name in schema]
    return ", ".join(filter(None, words))


def _fields(lines: str) -> str:
    return f'<ul class="fields">{lines}</ul>' if lines else ""


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(text: Any) -> str:
    return escape(str(text))


def _prose(text: str) -> str:
    """A text in which ` marks what is code."""
    return "".join(
        f"<code>{escape(part)}</code>" if index % 2 else escape(part)
        for index, part in enumerate(text.split("`"))
    )
