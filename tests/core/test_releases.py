"""The order of versions: known orders, known spellings, and properties of any texts."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from shm.core.releases import is_pre_release, is_release, version_rank
from tests.support.oracle.semver import semver_key

ASCENDING = [
    "1.2.3 1.2.4 1.3 1.10 2",
    "1.9.9 1.10.0 10.0 10.0.19041.1 10.0.19041.2",
    "1.5.0.dev3+g123 1.5.0a1 1.5.0-beta 1.5.0-beta.2 1.5.0-beta.10 1.5.0-M1 1.5.0-rc1 1.5.0",
    "1.4.9 1.5.0rc1 1.5.0 1.5.0.1",
    "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0",
    "9.0.0-preview.7 9.0.0-rc.1 9.0.0",
    "1.0a1.dev2 1.0a1 1.0a1.post1 1.0a2 1.0 1.0.post1.dev2 1.0.post1 1.0.post2 1.0.post10 1.0.1",
    "1.0.1 1.0.2 1.0.2k 1.0.2l 1.0.2za 1.0.3",
    "1.0.2 1.0.2m 1.0.2z",
    "1.4.2 1.4.2-1 1.4.2-2 1.4.2-10 1.4.2.1 1.4.3",
    "1.4.2 1.4.2-r0 1.4.2-r1",
    "4.3.2 4.3.2-ls12 4.3.2-ls13 4.3.2-ls100 4.3.3",
    "1.4.2~foo 1.4.2~rc1 1.4.2 1.4.2-1~bpo12+1 1.4.2-1 1.4.2-1ubuntu3 1.4.2-1ubuntu10 1.4.3 1:0.1 2:1.4.2-1ubuntu3",
    "1.5.0~20261101 1.5.0 1.5.0-alpine",
    "1.2.3 1.2.3-5-gabcdef1 1.2.3-12-g0123456 1.2.4",
    "1.5.0-ee-rc1 1.5.0 1.5.0-ee",
    "2.0.0-nightly.20261101 2.0.0-nightly.20261102 2.0.0",
    "nightly-20261101 20261101 nightly-20261102 20261102",
    "beta-1.2 1.2 release-1.3 v1.4 go1.21rc2 go1.21 go1.21.1",
    "2026-10-31 2026-11-01 2026-11-01-2 2026-11-01.2 2026-11-02 2026-12 2027-01-01",
    "20251231 20261101b2 20261101 20261101.1",
    "1.5.0 2026-11-01 20261101",
    "v1.2.3 v1.2.4-0.20261101120000-abcdef123456 v1.2.4",
    "log4j-2.3 log4j-2.17.1",
    "1.٢ 1.３ 1.४",
    "2.0.0-SNAPSHOT 2.0.0-M2 2.0.0-RC1 2.0.0.RELEASE 2.0.1",
    f"{10**24} {10**25} {10**26} {10**99} {10**100} {10**200}",
    f"1.{'9' * 24} 1.{'9' * 25} 1.{'9' * 26}",
]
SPELLINGS_OF_ONE_RELEASE = [
    ["1.2.3", "v1.2.3", "V1.2.3", " 1.2.3 ", "1.2.3+b", "1.2.3+exp.sha.5114f85", "release-1.2.3", "Version 1.2.3"],
    ["1", "1.0", "1.0.0", "1.0.0.0", "v1", "01.00"],
    ["V1.2", "1.2", "1.2.0", "1.02", "0:1.2", "0!1.2", "1.2-final", "1.2.GA", "1.2-stable", "１.２"],
    ["1.5.0-rc1", "1.5.0rc1", "1.5.0-rc.1", "1.5.0_RC1", "1.5.0~rc1", "1.5c1", "1.5.0-rc01", "1.5.0.rc1+build.7"],
    ["1.5.0-alpha1", "1.5a1"],
    ["1.0.post1", "1.0-1", "1.0-r1", "1.0.rev1", "1.0-post.1", "1.0_1"],
    ["2026-11-01", "2026.11.1", "2026.11.01"],
    ["0", "0.0", "00", "v0"],
    ["", " ", "\t"],
    ["main", "MAIN", " main"],
]
NAMES = [
    *("unknown", "main", "latest", "dev", "nightly", "é", "🚀", "v", "+1.2", "main+20261101", "pr-42", "feature/7"),
    *("7f3e9c2", "abc1234", "deadbeef", "g7f3e9c2", "sha-7f3e9c2", "v7f3e9c2", "main-7f3e9c2", "7f3e9c2-dirty"),
    *("dev-7f3e9c2", "0f4c1e7a-1111-4222-8333-444455556666", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
]
PRE_RELEASES = [
    *("1.5.0rc1", "2.0-beta", "1.5.0.dev3", "1.0a1", "1.0-pre", "1.0-preview.2", "1.0-M1", "1.0-SNAPSHOT", "1.5.0~rc1"),
    *("2.0.0-canary.3", "2.0.0-nightly.20261101", "nightly-20261101", "1.0.0-next.1", "1.0~foo", "go1.21rc2"),
    "v1.2.4-0.20261101120000-abcdef123456",
]
NOT_PRE_RELEASES = [
    *("1.5", "v1.5", "1.4.2-1", "4.3.2-ls12", "1.0.post1", "1.0.2k", "1.0.2m", "b7", "2026-11-01", "main", "")
]

WORDS = ["dev", "a", "alpha", "b", "beta", "rc", "c", "pre", "preview", "nightly", "snapshot", "canary"]

version_parts = st.sampled_from(
    [*"0123456789", "10", "00", *".-_+~: v!", *WORDS, "post", "r", "ls", "final", "é", "٣", "\x01"]
)
versions = st.lists(version_parts, max_size=12).map("".join) | st.text(max_size=20)
numbers = st.lists(st.integers(0, 10**30), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
identifiers = st.sampled_from([0, 1, 2, 10, 11, 100, "alpha", "beta", "rc"])
semvers = st.builds(
    lambda core, word, rest: ".".join(map(str, core)) + (f"-{'.'.join([word, *map(str, rest)])}" if word else ""),
    st.tuples(*[st.integers(0, 12)] * 3),
    st.sampled_from(["", "alpha", "beta", "rc"]),
    st.lists(identifiers, max_size=3),
)
python_versions = st.builds(
    lambda epoch, release, pre, post, dev, local: epoch + release + pre + post + dev + local,
    st.sampled_from(["", "0!", "1!"]),
    st.lists(st.integers(0, 11), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts))),
    st.just("") | st.builds(lambda word, n: f"{word}{n}", st.sampled_from(["a", "b", "rc"]), st.integers(0, 11)),
    st.just("") | st.integers(0, 11).map(lambda n: f".post{n}"),
    st.just("") | st.integers(0, 11).map(lambda n: f".dev{n}"),
    st.sampled_from(["", "+b", "+1.2"]),
)


def compare(first: Any, second: Any) -> int:
    """-1, 0 or 1: whether the first value is less than, equal to or greater than the second."""
    return int(first > second) - int(first < second)


@pytest.mark.parametrize("line", ASCENDING)
def test_versions_ascend(line: str) -> None:
    ranks = [version_rank(version) for version in line.split()]
    assert all(first < second for first, second in pairwise(ranks))


@pytest.mark.parametrize("spellings", SPELLINGS_OF_ONE_RELEASE)
def test_spellings_of_one_release_have_one_rank(spellings: list[str]) -> None:
    assert len({version_rank(version) for version in spellings}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_before_every_release(name: str) -> None:
    assert version_rank("") < version_rank(name) < version_rank("0.dev0") < version_rank("0")
    assert not is_release(name)
    assert not is_pre_release(name)


def test_different_names_have_different_ranks() -> None:
    assert len({version_rank(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "template", ["1.5.0{}", "1.5.0{}1", "1.5.0-{}", "1.5.0-{}.1", "1.5.0.{}1", "1.5.0~{}1", "v1.5_{}2"]
)
def test_a_pre_release_word_comes_before_its_release(template: str, word: str) -> None:
    for version in (template.format(word), template.format(word.upper())):
        assert version_rank("1.4.9") < version_rank(version) < version_rank("1.5.0")
        assert is_pre_release(version)


@pytest.mark.parametrize(
    ("version", "expected"), [*((v, True) for v in PRE_RELEASES), *((v, False) for v in NOT_PRE_RELEASES)]
)
def test_a_pre_release_is_recognized(version: str, expected: bool) -> None:
    assert is_pre_release(version) is expected


@settings(max_examples=300)
@given(versions)
@example("1.0-")
@example("+")
@example("1:!2")
def test_any_text_has_a_rank_without_control_characters(version: str) -> None:
    rank = version_rank(version)
    assert all(character >= " " for character in rank)  # sort keys append separators below the space
    assert is_release(version) or not is_pre_release(version)
    assert version_rank(f" {version}\n") == rank == version_rank.__wrapped__(version)


@settings(max_examples=200)
@given(numbers, versions)
def test_a_rank_is_not_the_prefix_of_another_rank(release: str, other: str) -> None:
    """So text appended to a rank never changes the order of two releases."""
    rank, another = version_rank(release), version_rank(other)
    assert rank == another or not another.startswith(rank)


@settings(max_examples=200)
@given(numbers, numbers)
def test_numbers_compare_as_numbers(first: str, second: str) -> None:
    ours = compare(version_rank(first), version_rank(second))
    assert ours == compare(*(release_numbers(each) for each in (first, second)))


def release_numbers(version: str) -> list[int]:
    """The numbers of a version, without trailing zeros."""
    parts = [int(part) for part in version.split(".")]
    while parts[1:] and not parts[-1]:
        parts.pop()
    return parts


@settings(max_examples=300)
@given(semvers, semvers)
def test_the_order_of_semantic_versions_is_that_of_semver(first: str, second: str) -> None:
    assert compare(version_rank(first), version_rank(second)) == compare(semver_key(first), semver_key(second))


@settings(max_examples=300)
@given(python_versions, python_versions)
@example("1.0.dev1", "1.0a1.dev1")
@example("1.0a1.post1.dev2", "1.0a1.post1")
def test_the_order_of_python_versions_is_that_of_pep_440(first: str, second: str) -> None:
    ours = compare(version_rank(first), version_rank(second))
    assert ours == compare(*(Version(Version(each).public) for each in (first, second)))
    assert is_pre_release(first) is Version(first).is_prerelease or Version(first).post is not None
