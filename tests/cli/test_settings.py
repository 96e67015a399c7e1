import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.keys import KeyPair
from p2p.addresses import is_address
from p2p.config import (
    KEYS,
    Settings,
    chain_of,
    load_settings,
    parse_value,
    plain_text,
    set_value,
    template,
)
from p2p.home import ConfigError, Home, home_of

ROOT = Path(__file__).parent.parent.parent
PEER = KeyPair.from_seed(bytes(32)).peer_id
JOIN = f"/ip4/1.2.3.4/tcp/4040/p2p/{PEER}"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_defaults_where_there_is_no_file(home: Home) -> None:
    loaded = load_settings(home, {}, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_flag_goes_before_environment_before_file_before_default(home: Home) -> None:
    home.settings.write_text("slots = 2\nthreads = 2\npeers_target = 2\n")
    environ = {"YUMA_SLOTS": "3", "YUMA_THREADS": "3"}
    loaded = load_settings(home, {"slots": 4}, environ)
    assert loaded.settings == Settings(slots=4, threads=3, peers_target=2)
    assert loaded.origins["slots"] == "flag --slots"
    assert loaded.origins["threads"] == "environment YUMA_THREADS"
    assert loaded.origins["peers_target"] == f"file {home.settings}"
    assert loaded.origins["network"] == "default"


def test_environment_of_each_type(home: Home) -> None:
    environ = {
        "YUMA_NETWORK": "lab",
        "YUMA_BOOTSTRAP": f"{JOIN}, {JOIN}",
        "YUMA_MDNS": "1",
        "YUMA_DHT": "false",
        "YUMA_ANNOUNCE": "",
    }
    settings = load_settings(home, {}, environ).settings
    assert settings == Settings(network="lab", bootstrap=(JOIN, JOIN), mdns=True, dht=False)


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("slots = 0", "an integer from 1 to 256"),
        ("slots = true", "an integer from 1 to 256"),
        ('slots = "8"', "an integer from 1 to 256"),
        ("mdns = 1", "true or false"),
        ('listen = "/ip4/0.0.0.0/tcp/1"', "a list of at most 16"),
        ("listen = [1]", "a list of at most 16"),
        ('listen = ["/ip4/0.0.0.0/udp/1"]', "such as /ip4/1.2.3.4/tcp/4040"),
        ('bootstrap = ["/ip4/1.2.3.4/tcp/4040"]', "such as /ip4/1.2.3.4/tcp/4040/p2p/"),
        ('network = "Main!"', "1 to 32 of a-z, 0-9, - and _"),
        ('log_level = "loud"', "one of debug, info, warning, error"),
        ('serve = [""]', "a model directory, or a stored or shipped model's name"),
    ],
)
def test_refuses_a_bad_value(home: Home, line: str, allowed: str) -> None:
    home.settings.write_text(line + "\n")
    with pytest.raises(ConfigError) as refusal:
        load_settings(home, {}, {})
    key = line.split()[0]
    assert str(refusal.value).startswith(f"{home.settings}: {key} has to be ")
    assert allowed in str(refusal.value)


def test_names_where_a_bad_value_came_from(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"^flag --slots: slots has to be"):
        load_settings(home, {"slots": 0}, {})
    with pytest.raises(ConfigError, match=r"^environment YUMA_SLOTS: slots has .* not 'many'$"):
        load_settings(home, {}, {"YUMA_SLOTS": "many"})


def test_refuses_an_unknown_key_and_what_is_not_toml(home: Home) -> None:
    home.settings.write_text("solts = 1\n")
    with pytest.raises(ConfigError, match="unknown key 'solts', known are: network, listen"):
        load_settings(home, {}, {})
    home.settings.write_text("slots\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_settings(home, {}, {})
    home.settings.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(home, {}, {})


def test_template_explains_every_key_and_changes_nothing(home: Home) -> None:
    home.settings.write_text(template({}))
    assert load_settings(home, {}, {}).settings == Settings()
    for key in KEYS.values():
        assert f"# {key.explanation}" in home.settings.read_text()
        assert f"\n# {key.name} = " in home.settings.read_text()


def test_the_example_is_the_template() -> None:
    assert (ROOT / "configs" / "node.toml").read_text() == template({})


def test_set_keeps_other_keys_and_comments(home: Home) -> None:
    home.settings.write_text(
        '# mine\nslots = 2  # few\nlisten = [\n  "/ip4/127.0.0.1/tcp/1",\n]\nthreads = 3\n'
    )
    set_value(home, "listen", ("/ip4/127.0.0.1/tcp/2",))
    set_value(home, "mdns", True)
    assert home.settings.read_text() == (
        '# mine\nslots = 2  # few\nlisten = ["/ip4/127.0.0.1/tcp/2"]\nthreads = 3\nmdns = true\n'
    )
    assert stat.S_IMODE(home.settings.stat().st_mode) == 0o600


def test_set_puts_a_key_at_its_comment(home: Home) -> None:
    home.settings.write_text(template({}))
    set_value(home, "slots", 3)
    set_value(home, "slots", 4)
    lines = home.settings.read_text().split("\n")
    assert lines[lines.index("# slots = 8") + 1] == "slots = 4"
    assert load_settings(home, {}, {}).settings == Settings(slots=4)


def test_set_refuses_and_changes_nothing(home: Home) -> None:
    home.settings.write_text("slots = 2\n")
    with pytest.raises(ConfigError, match="slots has to be an integer from 1 to 256"):
        set_value(home, "slots", 0)
    with pytest.raises(ConfigError, match="there is no setting 'solts'"):
        set_value(home, "solts", 1)
    assert home.settings.read_text() == "slots = 2\n"
    assert [path.name for path in home.path.iterdir()] == ["node.toml"]


NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30)


@given(st.lists(NAMES, max_size=5), st.sampled_from([template({}), 'serve = ["x"]', ""]))
def test_what_is_set_is_what_loads(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], before: str
) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    home.settings.write_text(before)
    set_value(home, "serve", tuple(names))
    assert load_settings(home, {}, {}).settings.serve == tuple(names)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_get_prints_what_set_takes(key: object) -> None:
    assert isinstance(key, type(KEYS["slots"]))
    assert parse_value(key, plain_text(key.default), "here") == key.default


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("/ip4/1.2.3.4/tcp/4040", True),
        ("/ip4/1.2.3.4/tcp/0", True),
        ("/ip6/::1/tcp/65535", True),
        ("/dns4/node.example.org/tcp/4040", True),
        (JOIN, True),
        ("", False),
        ("/", False),
        ("1.2.3.4:4040", False),
        ("/ip4/1.2.3/tcp/4040", False),
        ("/ip4/1.2.3.4/tcp/65536", False),
        ("/ip4/1.2.3.4/tcp/-1", False),
        ("/ip4/1.2.3.4/tcp/４", False),
        ("/ip4/1.2.3.4/udp/4040", False),
        ("/ip6/1.2.3.4/tcp/4040", False),
        ("/ip4/\0/tcp/1", False),
        ("/dns/a b/tcp/1", False),
        ("/ip4/1.2.3.4/tcp/4040/p2p/12D3KooW", False),
        (JOIN + "/", False),
        (JOIN[:-1] + "0", False),
    ],
)
def test_is_address(text: str, fits: bool) -> None:
    assert is_address(text, with_peer=None) is fits


def test_is_address_with_or_without_a_peer() -> None:
    assert is_address(JOIN, with_peer=True)
    assert not is_address(JOIN)
    assert not is_address("/ip4/1.2.3.4/tcp/4040", with_peer=True)


def test_home_of_flag_environment_default(tmp_path: Path) -> None:
    environ = {"YUMA_HOME": "/e"}
    assert home_of("/f", environ) == Home(Path("/f"))
    assert home_of(None, environ) == Home(Path("/e"))
    assert home_of(None, {}) == Home(Path("~/.yuma").expanduser())
    with pytest.raises(ConfigError, match="is too long for a home"):
        home_of("/" + "x" * 100, {})


def test_chain_of_a_network() -> None:
    assert chain_of("main").hex() == "f0182cdc5fb6bb10f33947b399676b41"
    assert chain_of("lab") != chain_of("main")
