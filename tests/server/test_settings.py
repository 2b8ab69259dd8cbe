import pytest
from click import UsageError
from click.testing import CliRunner
from pydantic import ValidationError

from oar_cli import main
from oar_cli.settings_options import load_settings, to_environment
from server.settings import Settings, environment_name


def test_every_setting_has_a_description_and_appears_in_the_help() -> None:
    text = " ".join(CliRunner().invoke(main, ["serve", "--help"]).output.split())
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"--{name.replace('_', '-')}" in text
        assert f"env: {environment_name(name)};" in text


def test_flags_win_over_the_environment_and_that_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings({}).port == 8000
    monkeypatch.setenv("OAR_PORT", "9000")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    monkeypatch.setenv("OAR_MODELS", "one, two,")
    assert (load_settings({}).port, load_settings({}).redis_url) == (9000, "redis://elsewhere")
    assert load_settings({}).models == ("one", "two")
    assert load_settings({"port": "9001", "redis_url": "redis://here"}).port == 9001
    assert load_settings({"redis_url": "redis://here"}).redis_url == "redis://here"


def test_a_child_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({"models": "one,two", "port": "1", "redis_url": "redis://here", "drain_seconds": "2.5"})
    for name, value in to_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings({}) == settings


@pytest.mark.parametrize(("name", "value"), [("OAR_PORT", "x"), ("OAR_QUEUE_DEPTH", "0"), ("OAR_LOG_FORMAT", "xml")])
def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    result = CliRunner().invoke(main, ["api"])
    assert result.exit_code == 78, "EX_CONFIG: no retry helps"
    assert name in result.output


@pytest.mark.parametrize("origin", ["friend.example", "https://friend.example/", "https://", "https://a/b", "//a"])
def test_what_is_no_origin_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("OAR_ALLOWED_ORIGINS", f"https://Good.example,{origin}")
    with pytest.raises(UsageError, match=r"OAR_ALLOWED_ORIGINS: .*no origin"):
        load_settings({})
    monkeypatch.setenv("OAR_ALLOWED_ORIGINS", "https://Good.example, null")
    assert load_settings({}).allowed_origins == ("https://good.example", "null")


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://friend.example:443", "https://friend.example"),
        ("http://friend.example:80", "http://friend.example"),
        ("http://friend.example:443", "http://friend.example:443"),
        ("https://friend.example:08443", "https://friend.example:8443"),
        ("HTTPS://Friend.Example", "https://friend.example"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[0:0::1]:80", "http://[::1]"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("*", "*"),
        ("null", "null"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(monkeypatch: pytest.MonkeyPatch, written: str, sent: str) -> None:
    monkeypatch.setenv("OAR_ALLOWED_ORIGINS", written)
    assert load_settings({}).allowed_origins == (sent,)


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        ("https://*.friend.example", "wildcard"),
        ("https://friend.example:*", "wildcard"),
        ("https://friend.example:0", "no origin"),
        ("https://friend.example:99999", "no origin"),
        ("https://friend.example:x", "no origin"),
        ("https://user@friend.example", "no origin"),
        ("https://friend example", "no origin"),
        ("https://[::g]", "no origin"),
        ("https://a..b\u00fc", "no origin"),
        ("https://friend.example?x", "no origin"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, origin: str, why: str
) -> None:
    monkeypatch.setenv("OAR_ALLOWED_ORIGINS", origin)
    with pytest.raises(UsageError, match=rf"OAR_ALLOWED_ORIGINS: .*{why}"):
        load_settings({})


def test_aliases_are_pairs_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAR_MODEL_ALIASES", "gpt-image-1=one, dall-e-3 = two,")
    settings = load_settings({})
    assert settings.model_aliases == {"gpt-image-1": "one", "dall-e-3": "two"}
    for name, value in to_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings({}) == settings, "a child reads the same"
    for bad in ("gpt-image-1", "=one", "a=", "a=one,a=two", "a=b,b=one"):
        monkeypatch.setenv("OAR_MODEL_ALIASES", bad)
        with pytest.raises(UsageError, match="OAR_MODEL_ALIASES: "):
            load_settings({})


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa/ss@host:6379/0",
        "redis://:12/ss@host:6379/0",
        "redis://:pa#ss@host",
        "redis://",
        "http://:pass@host",
        "host:6379",
        "unix://",
    ],
)
def test_a_redis_url_that_would_be_misread_is_refused_without_being_repeated(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A slash in a password ended the host there: the rest of the password was logged as the address."""
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(UsageError, match=r"REDIS_URL: .*no URL of a Redis") as caught:
        load_settings({})
    assert "ss@" not in str(caught.value)
    with pytest.raises(ValidationError) as raw:
        Settings()
    assert "ss@" not in str(raw.value)


def test_secrets_are_not_in_the_text_of_the_settings() -> None:
    settings = Settings(redis_url="redis://:secret@host", metrics_key="also a secret one")
    assert "secret" not in repr(settings)
