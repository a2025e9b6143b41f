"""Tests lists of nouns: WordNet's index with its licence, directories, text files, and files that are no list."""

import pytest

from clustering_jax.data.nouns import read_nouns
from clustering_jax.errors import UserError

# Lemma, part of speech, senses, pointers, ...; with a licence before the first entry, as in the files of WordNet.
INDEX = """\
  1 This software and database is being provided to you, the LICENSEE, by  
  2 a university under the following license.  By obtaining, using  
  29 Title to copyright in this software, database and any associated  
'hood n 1 2 @ ; 1 0 08641944  
aardvark n 1 2 @ #m 1 0 02082791  
guinea_pig n 2 3 @ #m %m 2 1 02336641 10159045  
dog n 7 5 @ ~ #m #p %p 7 1 02084071 10114209 10023039 09886220 07676602 03901548 02710044  
jack_of_all_trades n 1 1 @ 1 0 10093475  
"""
FOUND = ["'hood", "aardvark", "guinea pig", "dog", "jack of all trades"]


@pytest.mark.parametrize("place", ["index.noun", "dict/index.noun", "renamed.txt"])
def test_the_index_of_wordnet(tmp_path, place):
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(INDEX)
    assert read_nouns(file) == FOUND
    if "index" in place:
        assert read_nouns(tmp_path) == read_nouns(str(tmp_path)) == FOUND


def test_the_index_next_to_the_folder_dict_is_preferred(tmp_path):
    (tmp_path / "dict").mkdir()
    (tmp_path / "dict" / "index.noun").write_text(INDEX)
    (tmp_path / "index.noun").write_text("cat n 1 1 @ 1 0 02121620  \n")
    assert read_nouns(tmp_path) == ["cat"]


TEXTS = {
    "duplicates and blanks": ("dog\n\n  cat \ndog\n\t\nguinea pig\ncat", ["dog", "cat", "guinea pig"]),
    "line ends of Windows": ("dog\r\ncat\r\n", ["dog", "cat"]),
    "a mark of the byte order": ("\ufeffdog\ncat\n", ["dog", "cat"]),
    "every line indented": ("  dog\n  cat\n", ["dog", "cat"]),
    "underscores stay": ("guinea_pig\n", ["guinea_pig"]),
    "other scripts": ("naïve\n猫\n", ["naïve", "猫"]),
    "one line like the index": ("dog n 7 5\ncat\n", ["dog n 7 5", "cat"]),
    "the index with an empty line": (INDEX + "\n", FOUND),
}


@pytest.mark.parametrize("text", TEXTS)
def test_text_files(tmp_path, text):
    content, expected = TEXTS[text]
    (tmp_path / "nouns.txt").write_bytes(content.encode())
    assert read_nouns(tmp_path / "nouns.txt") == expected


WRONG = {
    "empty": (b"", "holds no noun"),
    "blanks": (b"\n  \n\t\n", "holds no noun"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe", "can't be read as UTF-8 text"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors(tmp_path, wrong):
    content, message = WRONG[wrong]
    (tmp_path / "nouns").write_bytes(content)
    refuses(f"{tmp_path}/nouns {message}", tmp_path / "nouns")


def test_missing(tmp_path):
    refuses("'absent.txt' does not exist: give WordNet's index.noun, or a text file", "absent.txt")
    refuses("'' does not exist", "")
    (tmp_path / "dict").mkdir()
    refuses("holds no index.noun: give WordNet's directory", tmp_path)


def refuses(expected, path):
    with pytest.raises(UserError, match=expected) as error:
        read_nouns(path)
    assert "\n" not in str(error.value)
