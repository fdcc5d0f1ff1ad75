"""The set-up of the browser tests says why it cannot have a browser."""

import os
import shutil
import subprocess

from browser import find_or_install


def test_without_debian_or_root_the_reason_is_clear(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "not installed, and this user cannot install Debian packages" in find_or_install()


def test_a_failed_installation_is_the_reason(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    failed = subprocess.CompletedProcess([], 100, "", "E: Unable to locate package chromium")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert find_or_install().endswith("failed: E: Unable to locate package chromium")
