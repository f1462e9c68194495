"""Whole corpora from a server on loopback, from an archive and from a folder at hand."""

import io
import re
from dataclasses import replace

import pytest

from fixtures.aihub263 import wav_bytes
from fixtures.downloads import zip_bytes
from fixtures.releases import FILES, everything_in, make_folder, yes
from koser.data import corpora
from koser.data.download import Expected
from koser.data.releases import RELEASES, SOURCE_FILE, find_release, get
from koser.errors import ConfigError, DownloadError


def test_a_corpus_is_fetched_proven_unpacked_and_ready_to_prepare(release, tmp_path):
    folder = tmp_path / "corpora" / "ravdess"
    acquired = get(release, folder, accept=yes)
    assert acquired.folder == folder
    assert acquired.proof == f"checked against {release.expected.digest}"
    for name, content in FILES.items():
        assert (folder / name).read_bytes() == content
    assert everything_in(folder.parent) == sorted(
        ["ravdess", *(f"ravdess/{name}" for name in ("Actor_01", "Actor_02", SOURCE_FILE, *FILES))]
    )
    assert len(corpora.prepare("auto", folder)) == len(FILES)
    source = (folder / SOURCE_FILE).read_text(encoding="utf-8")
    assert "CC BY-NC-SA 4.0" in source
    assert f"Fetched from: {release.url} (checked against md5:" in source


def test_what_is_there_is_not_fetched_again(release, tmp_path, origin):
    get(release, tmp_path / "r", accept=yes)
    again = get(release, tmp_path / "r", accept=lambda _: pytest.fail("was asked again"))
    assert again.proof == ""  # nothing was done, nothing is claimed
    assert len(origin.requests) == 1


def test_nothing_is_fetched_or_copied_without_the_licence_accepted(release, tmp_path, origin):
    with pytest.raises(DownloadError, match=r"licence of ravdess was not accepted.*zenodo\.org"):
        get(release, tmp_path / "r", accept=lambda _: False)
    with pytest.raises(DownloadError, match="not accepted"):
        get(release, tmp_path / "r", accept=lambda _: False, source=make_folder(tmp_path / "s"))
    assert origin.requests == []
    assert not (tmp_path / "r").exists()


def test_a_broken_download_leaves_no_folder_and_goes_on_later(release, tmp_path, origin):
    origin.break_after.append(100)
    with pytest.raises(DownloadError, match="100 bytes are kept"):
        get(release, tmp_path / "r", accept=yes)
    assert everything_in(tmp_path) == ["r.zip.part", "r.zip.part.json"]
    get(release, tmp_path / "r", accept=yes)
    assert origin.n_sent == len(origin.content)
    assert "r" in everything_in(tmp_path)
    assert not any(name.startswith("r.zip") for name in everything_in(tmp_path))


def test_a_local_archive_is_checked_as_a_download_is_and_stays(release, tmp_path, origin):
    archive = tmp_path / "copy.zip"
    archive.write_bytes(origin.content)
    get(release, tmp_path / "r", accept=yes, source=archive)
    assert len(corpora.prepare("ravdess", tmp_path / "r")) == len(FILES)
    assert origin.requests == []
    assert archive.exists()
    archive.write_bytes(zip_bytes({**FILES, "extra.txt": b""}))
    with pytest.raises(DownloadError, match="is not the file that was published: size is"):
        get(release, tmp_path / "r2", accept=yes, source=archive)
    assert archive.exists()  # the user's own
    assert not (tmp_path / "r2").exists()


def test_a_local_folder_is_copied(release, tmp_path):
    source = make_folder(tmp_path / "at hand")
    acquired = get(release, tmp_path / "r", accept=yes, source=source)
    assert acquired.proof == "a copy of a folder, checked only to hold at least 6 recordings"
    assert "md5" not in (tmp_path / "r" / SOURCE_FILE).read_text(encoding="utf-8")
    assert len(corpora.prepare("ravdess", tmp_path / "r")) == len(FILES)
    with pytest.raises(DownloadError, match="No file or folder at"):
        get(release, tmp_path / "r2", accept=yes, source=tmp_path / "gone")


COUNTED = (
    "its publisher gives no digest: checked are only the archive's own checksums, and that it "
    "holds at least 6 recordings"
)


@pytest.mark.parametrize("kind", ["download", "archive", "folder"])
def test_only_what_was_checked_is_said_and_only_of_a_download_how_it_came(
    release, origin, tmp_path, kind
):
    archive, folder = tmp_path / "copy.zip", make_folder(tmp_path / "folder")
    archive.write_bytes(origin.content)
    source, proof = {
        "download": (None, f"{COUNTED}; it came over plain http"),
        "archive": (archive, COUNTED),
        "folder": (folder, "a copy of a folder, checked only to hold at least 6 recordings"),
    }[kind]
    undigested = replace(release, expected=Expected())
    assert get(undigested, tmp_path / "r", accept=yes, source=source).proof == proof
    text = (tmp_path / "r" / SOURCE_FILE).read_text("utf-8")
    assert f"Fetched from: {source or origin.url} ({proof})" in text


@pytest.mark.parametrize("kind", ["download", "archive", "folder"])
def test_a_part_of_a_corpus_is_refused_with_how_many_of_how_many(release, origin, tmp_path, kind):
    whole = replace(release, n_recordings=7, expected=Expected())
    archive = tmp_path / "copy.zip"
    archive.write_bytes(origin.content)
    folder = make_folder(tmp_path / "folder")
    for name in FILES:  # none of them one of the seven: copies, a song, another's
        (folder / f"copy of {name.replace('/', ' ')}").write_bytes(b"")
        (folder / name.rpartition("/")[2]).write_bytes(FILES[name])
    (folder / "03-02-01-01-01-01-01.wav").write_bytes(wav_bytes(1))
    source = {"download": None, "archive": archive, "folder": folder}[kind]
    message = f"'{source or origin.url}' holds 6 of the 7 recordings of ravdess. Check"
    with pytest.raises(DownloadError, match=re.escape(message)):
        get(whole, tmp_path / "r", accept=yes, source=source)
    assert not (tmp_path / "r").exists()
    assert not (tmp_path / "r.zip").exists()  # or it would be taken the next time


@pytest.mark.parametrize("target", ["r", "corpora/ravdess", "../link/r"])
def test_a_folder_is_not_copied_into_itself(release, tmp_path, target):
    source = make_folder(tmp_path / "at hand")
    (tmp_path / "link").symlink_to(source)
    before = everything_in(tmp_path)
    with pytest.raises(DownloadError, match=r"lies inside '.*at hand'.*outside it with --to"):
        get(release, source / target, accept=lambda _: pytest.fail("was asked"), source=source)
    assert everything_in(tmp_path) == before
    # beside it is no part of it, however alike the names
    assert get(release, tmp_path / "at hand too", accept=yes, source=source).proof


def test_links_to_files_and_folders_elsewhere_are_copied_as_what_they_lead_to(release, tmp_path):
    source, disk = make_folder(tmp_path / "at hand"), tmp_path / "other disk"
    disk.mkdir()
    (source / "Actor_01").rename(disk / "Actor_01")
    (source / "Actor_01").symlink_to(disk / "Actor_01")
    name = next(iter(path for path in FILES if path.startswith("Actor_02")))
    (source / name).rename(disk / "one.wav")
    (source / name).symlink_to(disk / "one.wav")
    get(release, tmp_path / "r", accept=yes, source=source)
    for name, content in FILES.items():
        assert (tmp_path / "r" / name).read_bytes() == content
    assert not any(path.is_symlink() for path in (tmp_path / "r").rglob("*"))


@pytest.mark.parametrize(
    ("link", "leads_to"),
    [
        ("Actor_01/itself", "at hand/Actor_01"),
        ("above", ""),  # where the copy goes, too
        ("up", "at hand"),
        ("one", "two"),  # which leads back
        ("result", "results"),  # where the copy goes
    ],
)
def test_links_that_a_copy_would_never_end_with_are_refused(release, tmp_path, link, leads_to):
    source = make_folder(tmp_path / "at hand")
    for name in ("two", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "two" / "back").symlink_to(source)
    (source / link).symlink_to(tmp_path / leads_to)
    before = everything_in(tmp_path)
    with pytest.raises(DownloadError, match=r"is a link to .* copied into itself.*--from"):
        get(release, tmp_path / "results" / "r", accept=yes, source=source)
    assert everything_in(tmp_path) == before


def test_a_copy_that_fails_names_the_first_file_and_counts_the_others(release, tmp_path):
    source = make_folder(tmp_path / "at hand")
    for number in range(5):
        (source / f"gone{number}.wav").symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        DownloadError, match=r"No such file.*gone\d.*, and 4 files more\."
    ) as caught:
        get(release, tmp_path / "r", accept=yes, source=source)
    assert str(caught.value).count("gone") == 1
    assert not (tmp_path / "r").exists()


def test_what_is_another_corpus_or_none_is_refused_and_cleared_away(release, tmp_path):
    other = tmp_path / "emodb.zip"
    other.write_bytes(zip_bytes({"wav/03a01Fa.wav": wav_bytes(1)}))
    unchecked = replace(release, expected=Expected())
    with pytest.raises(DownloadError, match="holds no ravdess, but emodb"):
        get(unchecked, tmp_path / "r", accept=yes, source=other)
    other.write_bytes(zip_bytes({"readme.txt": b"nothing"}))
    with pytest.raises(DownloadError, match="holds no ravdess, nor any corpus koser knows"):
        get(unchecked, tmp_path / "r", accept=yes, source=other)
    assert everything_in(tmp_path) == ["emodb.zip"]


def test_files_that_a_user_has_sorted_by_emotion_are_told_from_another_corpus(release, tmp_path):
    """The names are those of the corpus, so what is wrong is where its files lie."""
    source, emotions = tmp_path / "sorted", {"01": "neutral", "03": "happy", "05": "angry"}
    for name, content in FILES.items():
        stem = name.rpartition("/")[2]
        path = source / emotions[stem.split("-")[2]] / stem
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(DownloadError) as refused:
        get(release, tmp_path / "r", accept=yes, source=source)
    assert str(refused.value) == (
        f"'{source}' holds 6 of the 6 recordings of ravdess, but not as published: there is "
        f"sound in folders named by emotions: angry, happy, neutral. Give --from the "
        f"archive, or a folder as the archive has it; or use yours where it is: "
        f"koser prepare ravdess {source} --out ravdess.parquet"
    )
    assert everything_in(tmp_path)[0] == "sorted"
    assert not (tmp_path / "r").exists()
    # what is advised is possible, and has the labels of the names
    labels = corpora.prepare("ravdess", source).table["label"].unique()
    assert set(labels) == {"neutral", "happiness", "angry"}


def test_a_corpus_among_others_is_not_said_to_be_missing(release, tmp_path):
    both = zip_bytes({**FILES, "wav/03a01Fa.wav": wav_bytes(1)})
    (tmp_path / "both.zip").write_bytes(both)
    message = (
        r"both\.zip' holds 6 of the 6 recordings of ravdess, but not as published: there is "
        r"emodb, files named like 03a01Fa\.wav\. Check the address or the copy\.$"
    )
    unchecked = replace(release, expected=Expected())
    with pytest.raises(DownloadError, match=message):
        get(unchecked, tmp_path / "r", accept=yes, source=tmp_path / "both.zip")


def test_a_folder_that_koser_did_not_make_is_left_alone(release, tmp_path, origin):
    (tmp_path / "r").mkdir()
    with pytest.raises(DownloadError, match="was not made by koser get"):
        get(release, tmp_path / "r", accept=yes)
    assert origin.requests == []


def test_only_the_corpus_is_taken_out_of_a_repository(tmp_path):
    inside = "Dataset/SpeechCorpus/Emotional"
    wav = f"{inside}/emotional-to-emotional/nea/wav/nea00001.wav"
    files = {wav: wav_bytes(1), "Codeset/model.bin": b"x" * 99, f"{inside}X/a.txt": b""}
    archive = tmp_path / "archive.zip"
    for top in ("emotiontts_open_db-8b4e9ba/", ""):
        archive.write_bytes(zip_bytes(files, top=top))
        folder = tmp_path / f"e{len(top)}"
        get(replace(RELEASES["emotiontts"], n_recordings=1), folder, accept=yes, source=archive)
        taken = [name for name in everything_in(folder) if "." in name.rpartition("/")[2]]
        assert sorted(taken) == sorted([f"{top}{wav}", SOURCE_FILE])


# What is offered


RECORDINGS = {
    "emotiontts": "nea00001",
    "ravdess": "03-01-06-01-02-01-12",
    "emodb": "03a01Fa",
    "nemo": "WR0_surprised_64",
}


@pytest.mark.parametrize("name", RELEASES)
def test_every_release_names_its_licence_and_has_an_adapter(name):
    release = RELEASES[name]
    text = release.describe()
    for part in (release.licence, release.citation, release.page):
        assert part
        assert part in text
    assert name in corpora.RECOGNISERS
    assert re.fullmatch(release.recording, RECORDINGS[name])
    assert find_release(name, url="https://example.org/a.zip").url == "https://example.org/a.zip"


def test_corpora_that_need_an_agreement_are_not_fetched():
    with pytest.raises(ConfigError, match="cannot fetch 'aihub263', only emotiontts"):
        find_release("aihub263")


# The command


@pytest.fixture
def answers(monkeypatch):
    def answer(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    return answer


def test_the_command_shows_the_licence_asks_and_says_what_is_next(
    koser, origin, answers, tmp_path, monkeypatch
):
    few = replace(RELEASES["ravdess"], n_recordings=6, expected=Expected())
    monkeypatch.setitem(RELEASES, "ravdess", few)
    answers("yes\n")
    status, out, err = koser("get", "ravdess", "--url", origin.url)
    assert status == 0, err
    assert "Licence: CC BY-NC-SA 4.0" in out
    assert "its publisher gives no digest" in out
    assert "plain http" in out
    assert "koser prepare ravdess corpora/ravdess --out ravdess.parquet" in out
    status, out, _ = koser("prepare", "auto", "corpora/ravdess", "--out", "m.parquet")
    assert status == 0
    assert "looks like ravdess: files named like 03-01-01-01-01-01-01.wav" in out
    status, out, _ = koser("get", "ravdess", "--url", origin.url)
    assert (status, "Already there" in out) == (0, True)


def test_the_command_refuses_to_copy_the_folder_it_is_called_in(koser, tmp_path):
    make_folder(tmp_path)
    before = everything_in(tmp_path)
    status, _, err = koser("get", "ravdess", "--from", ".", "--accept-licence")
    assert status == 1
    assert err.startswith("Error: 'corpora/ravdess' lies inside '.'")
    assert err.count("\n") == 1
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("answer", ["", "no\n", "y\n", "\n"])
def test_the_command_takes_nothing_but_yes_for_yes(koser, origin, answers, answer, tmp_path):
    answers(answer)
    status, out, err = koser("get", "ravdess", "--url", origin.url)
    assert status == 1
    assert "Licence:" in out
    assert err.startswith("Error: The licence of ravdess was not accepted")
    assert err.count("\n") == 1
    assert origin.requests == []


def test_the_command_refuses_another_archive_in_one_line(koser, origin, tmp_path):
    status, _, err = koser("get", "ravdess", "--accept-licence", "--url", origin.url)
    assert status == 1
    assert err.startswith(f"Error: '{origin.url}' is not the file that was published: size is")
    assert err.count("\n") == 1
