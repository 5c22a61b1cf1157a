"""Windows paths seen from WSL."""

from pathlib import Path, PurePosixPath

import pytest

from localstack import LocalStackError
from localstack.wsl import Wsl, _mount_root, is_windows_path, on_windows_drive, translated

UBUNTU = Wsl(version=2, distribution="Ubuntu")


@pytest.mark.parametrize(
    ("windows", "linux"),
    [
        (r"C:\Users\me\fruits", "/mnt/c/Users/me/fruits"),
        ("C:/Users/me/fruits", "/mnt/c/Users/me/fruits"),
        (r"d:\Images\Training 2" + "\\", "/mnt/d/Images/Training 2"),
        (r"C:\Users\me/mixed\Äpfel", "/mnt/c/Users/me/mixed/Äpfel"),
        ("C:\\", "/mnt/c"),
        ("E:", "/mnt/e"),
        (r"\\?\C:\very\long", "/mnt/c/very/long"),
        (r"\\wsl$\Ubuntu\home\me\x", "/home/me/x"),
        (r"\\wsl.localhost\ubuntu\home\me", "/home/me"),
        ("//wsl.localhost/Ubuntu/home/me", "/home/me"),
        (r"\\wsl$\Ubuntu", "/"),
    ],
)
def test_a_windows_path_is_found_in_linux(windows, linux):
    assert is_windows_path(windows)
    assert translated(windows, wsl=UBUNTU) == Path(linux)


def test_drives_are_looked_for_where_wsl_conf_mounts_them(tmp_path):
    config = tmp_path / "wsl.conf"
    config.write_text("[boot]\nsystemd=true\n[automount]\nroot = /win/\noptions=metadata\n")
    wsl = Wsl(version=2, distribution="", mount_root=_mount_root(config))
    assert translated(r"C:\a", wsl=wsl) == Path("/win/c/a")


@pytest.mark.parametrize("content", [None, "", "no section\n", "[automount]\nenabled=true\n"])
def test_without_a_mount_root_it_is_mnt(tmp_path, content):
    config = tmp_path / "wsl.conf"
    if content is not None:
        config.write_text(content)
    assert _mount_root(config) == PurePosixPath("/mnt")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (r"\\wsl$\Debian\home\me", "distribution Debian; this is Ubuntu"),
        (r"\\server\share\fruits", "network share"),
        (r"C:fruits", "no absolute Windows path"),
    ],
)
def test_a_path_that_is_not_here_is_refused(path, said):
    with pytest.raises(LocalStackError, match=said) as error:
        translated(path, wsl=UBUNTU)
    assert error.value.remedy


@pytest.mark.parametrize("path", ["/home/me", "fruits", "s3a://fruits/images", "C:fruits", "c", ""])
def test_other_paths_are_not_windows(path):
    assert not is_windows_path(path)


@pytest.mark.parametrize(
    ("path", "slow"),
    [("/mnt/c/Users/me", True), ("/mnt/c", True), ("/mnt/data/x", False), ("/home/me", False)],
)
def test_a_mounted_windows_drive_is_recognised(path, slow):
    assert on_windows_drive(Path(path), wsl=UBUNTU) is slow
