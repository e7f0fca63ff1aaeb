"""What an image says about running it is converted as the specification has it, or refused."""

import json

import pytest
from containers import SOURCE, image_config

from graphdrivers import errors
from graphdrivers.images.conversion import OBEYED, Settings, places_for_volumes, read_settings
from graphdrivers.images.manifests import ImageConfig

IMAGE = "org.opencontainers.image."
SURROGATE = "\ud800"


def read(config: object = None, **more: object) -> Settings:
    """Convert a configuration made by hand."""
    return read_settings(image_config(config, **more), SOURCE)


def test_nothing() -> None:
    """A configuration may say nothing at all about running."""
    for config in (None, {}, {"Cmd": None, "Env": None, "Labels": None, "Volumes": None, "User": None}):
        settings = read(config)
        assert (settings.entrypoint, settings.cmd, settings.env, settings.user) == ((), (), (), "")
        assert settings.cwd == "/"
        assert settings.annotations == {f"{IMAGE}os": "linux", f"{IMAGE}architecture": "amd64"}


def test_verbatim() -> None:
    """Fields with a counterpart are taken over letter by letter."""
    settings = read({"Entrypoint": ["/a b", ""], "Cmd": ["\n"], "Env": ["A=", "A=x=y", "b=ü"], "WorkingDir": "/x//y/"})

    assert settings.entrypoint == ("/a b", "")
    assert settings.cmd == ("\n",)
    assert settings.env == ("A=", "A=x=y", "b=ü")
    assert settings.cwd == "/x//y/"


def test_annotations() -> None:
    """Labels and the properties of the image become annotations."""
    labels = {"maintainer": "me", "empty": ""}
    config = {"Labels": labels, "StopSignal": "SIGUSR1", "ExposedPorts": {"80/tcp": {}, "443/tcp": {}}}
    more = {"author": "somebody", "created": "2020-01-02T03:04:05Z", "os.version": "1", "os.features": ["a", "b"]}
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}

    expected = {key: str(value) for key, value in {**more, **platform}.items()}
    expected |= {"os.features": "a,b", "stopSignal": "SIGUSR1", "exposedPorts": "443/tcp,80/tcp"}
    assert read(config, **more, **platform).annotations == {
        **{IMAGE + key: value for key, value in expected.items()},
        **labels,
    }


def test_labels_win() -> None:
    """A label of the same key has precedence over what is implied."""
    settings = read({"Labels": {f"{IMAGE}os": "mine", f"{IMAGE}stopSignal": ""}, "StopSignal": "SIGTERM"})

    assert settings.annotations[f"{IMAGE}os"] == "mine"
    assert settings.annotations[f"{IMAGE}stopSignal"] == ""


@pytest.mark.parametrize("prefix", OBEYED)
def test_withheld(prefix: str) -> None:
    """Labels that runtimes obey are no annotations, in whatever case, and are named."""
    labels = {prefix + "x": "1", prefix.upper() + "Y": "1", "x." + prefix: "1", prefix[:-1]: "1", "": "1"}

    settings = read({"Labels": labels})

    assert settings.withheld == tuple(sorted(["", prefix + "x", prefix.upper() + "Y"]))
    assert {"x." + prefix, prefix[:-1]} < settings.annotations.keys()
    assert not settings.annotations.keys() & set(settings.withheld)


@pytest.mark.parametrize(
    "config",
    [
        *([], "text", 7, True, [{}]),
        *({"Cmd": "sh"}, {"Cmd": {"0": "sh"}}, {"Cmd": [1]}, {"Cmd": [None]}, {"Cmd": [["sh"]]}),
        *({"Entrypoint": "sh"}, {"Entrypoint": [True]}, {"Entrypoint": ["sh\0"]}, {"Cmd": ["\0"]}),
        *(
            {"Cmd": [SURROGATE]},
            {"Env": [f"A={SURROGATE}"]},
            {"Labels": {"a": SURROGATE}},
            {"Labels": {SURROGATE: "a"}},
        ),
        *({"Env": {"A": "b"}}, {"Env": ["A"]}, {"Env": ["=b"]}, {"Env": [""]}, {"Env": ["A=\0"]}, {"Env": [0]}),
        *({"WorkingDir": "x"}, {"WorkingDir": "./x"}, {"WorkingDir": "/x/../y"}, {"WorkingDir": "/.."}),
        *({"WorkingDir": "/x\0"}, {"WorkingDir": ["/"]}, {"WorkingDir": "/" + "x" * 4096}, {"WorkingDir": "C:\\"}),
        *({"WorkingDir": "/proc/self/fd/7"}, {"WorkingDir": "//proc/./self/fd/8/"}, {"WorkingDir": "/proc"}),
        *({"User": 0}, {"User": ["root"]}, {"User": "root\0"}, {"User": SURROGATE}),
        *({"Labels": ["a=b"]}, {"Labels": {"a": 1}}, {"Labels": {"a": None}}, {"Labels": {"a\0": "b"}}),
        *({"StopSignal": 9}, {"StopSignal": "SIG\0"}, {"ExposedPorts": ["80"]}, {"ExposedPorts": {"80\0": {}}}),
        *({"Volumes": ["/x"]}, {"Volumes": {"/x\0": {}}}, {"Volumes": "/x"}),
        *(
            {"cmd": ["sh"]},
            {"CMD": ["sh"]},
            {"Cmd": ["sh"], "cmd": ["ls"]},
            {"u\u017fer": "0"},
            {"wor\u212aingDir": "/"},
        ),
    ],
)
def test_refused(config: object) -> None:
    """What is of a wrong type, ambiguous, or cannot be handed to a process is refused in one line."""
    with pytest.raises(errors.InvalidManifest) as caught:
        read(config)

    assert str(caught.value).startswith("image: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "more", [{"Config": {}}, {"author": 1}, {"created": 0}, {"os.features": "a"}, {"author": "\0"}]
)
def test_refused_outside_config(more: dict[str, object]) -> None:
    """The same holds for what stands beside ``config``."""
    with pytest.raises(errors.InvalidManifest):
        read(None, **more)


def test_unknown_fields_are_passed_over() -> None:
    """Docker writes more than the specification has; none of it counts."""
    config = {"Hostname": "evil", "Domainname": "", "Tty": True, "OpenStdin": True, "Healthcheck": {"Test": ["CMD"]}}

    assert read({**config, "Privileged": True, "OnBuild": ["x"], "Shell": 7}) == read({})


def test_names_that_differ_in_case_only() -> None:
    """Volumes, ports and labels are names of the image's own, where case counts."""
    settings = read(
        {"Volumes": {"/a": {}, "/A": {}}, "ExposedPorts": {"1/tcp": {}, "1/TCP": {}}, "Labels": {"a": "", "A": ""}}
    )

    assert settings.volumes == ("/A", "/a")
    assert {"a", "A"} < settings.annotations.keys()


def test_places_for_volumes() -> None:
    """Something may be mounted on volumes, but never where it could uncover what is masked."""
    inside = ["/proc", "/proc/sys", "/sys/fs/cgroup", "/dev", "//dev/./shm", "/./proc/"]
    settings = read({"Volumes": {path: {} for path in [*inside, "/data", "/processes", "/srv/sys", "/device/"]}})

    assert set(settings.volumes) > set(inside)
    assert places_for_volumes(settings, SOURCE) == ("/data", "/device/", "/processes", "/srv/sys")


@pytest.mark.parametrize("path", ["data", "", "/", "/./", "/..", "/a/../../b", "../x", "/x/.."])
def test_volumes_that_are_no_places(path: str) -> None:
    """A volume that is relative, the root or climbs is refused once something is to be mounted there."""
    settings = read({"Volumes": {path: {}}})

    with pytest.raises(errors.InvalidManifest, match="volume"):
        places_for_volumes(settings, SOURCE)


def test_large() -> None:
    """A configuration as large as is read at all is converted too."""
    env = [f"V{number}=x" for number in range(100_000)]
    text = json.dumps({"os": "linux", "architecture": "x", "rootfs": {"type": "layers"}, "config": {"Env": env}})

    assert read_settings(ImageConfig.parse(text.encode(), SOURCE, "config", 0), SOURCE).env == tuple(env)
