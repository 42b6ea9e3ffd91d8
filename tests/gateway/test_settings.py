"""Command-line options and environment variables of the gateway."""

from __future__ import annotations

import re

import pytest

from gorggle_gateway.settings import GatewaySettings, SettingsError, load_settings


def test_options_override_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GORGGLE_GATEWAY_MAX_CONNECTIONS", "5")
    monkeypatch.setenv("GORGGLE_GATEWAY_CONNECT", "https://a.example https://b.example")
    settings = load_settings(
        ["--listen", "[::1]:0", "--origins", "http://c.example/,http://d.example", "--exit-on-stdin-eof"]
    )
    assert (settings.host, settings.port, settings.max_connections) == ("::1", 0, 5)
    assert settings.origins == ("http://c.example", "http://d.example")
    assert settings.connect == ("https://a.example", "https://b.example")
    assert settings.exit_on_stdin_eof
    assert load_settings(["--max-connections", "7"]).max_connections == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "8080"], "listen: expected HOST:PORT"),
        (["--origins", "example.org"], "origins: expected an origin"),
        (["--max-session-s", "0"], "max_session_s: Input should be greater than 0"),
        (["--max-connections", "many"], "max_connections: Input should be a valid integer"),
    ],
)
def test_invalid_values_are_refused_with_the_setting_name(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(arguments)


def test_a_missing_token_file_is_reported() -> None:
    with pytest.raises(SettingsError, match="cannot read the token file nowhere"):
        _ = GatewaySettings(server_token_file="nowhere").server_token


def test_the_help_describes_every_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        load_settings(["--help"])
    help_text = capsys.readouterr().out
    for name, field in GatewaySettings.model_fields.items():
        assert field.description
        assert f"--{name.replace('_', '-')}" in help_text
    assert not re.search(r"default: (None|\(\)|False|\))", help_text)
