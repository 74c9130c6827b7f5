"""MovieLens in each of its published forms."""

import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from reading import USER_KEY, Read, pseudonym

from recfound_data.corpora.movielens import TAGS, MovieLens
from recfound_data.errors import RecfoundError

FLAGS = "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical"
GENRES = [*FLAGS.split(), "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"]


def u_item(number: int, title: str, date: str, *genres: str) -> str:
    address = "http://example.org/title?Some%20Film"
    return "|".join([str(number), title, date, "", address, *("1" if genre in genres else "0" for genre in GENRES)])


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def file(name: str, text: str, encoding: str = "utf-8") -> str:
        (tmp_path / name).write_bytes(text.encode(encoding))
        return str(tmp_path / name)

    return file


def test_100k(write: Callable[..., str]) -> None:
    films = [
        u_item(1, "Plain Film (1995)", "01-Jan-1995", "Comedy", "Western"),
        u_item(2, "Été sans fin, L' (1994)", "01-Jan-1994", "Drama"),
        u_item(267, "unknown", "", "unknown"),
        u_item(4, "Half a Film (1990)", "01-Jan-1990").rsplit("|", 3)[0],
    ]
    read = Read(
        MovieLens(
            ratings=write("u.data", "196\t1\t3\t881250949\n22\t2\t9\t878887116\n22\t2\t4\t878887116\n22\t2\t4\n"),
            movies=write("u.item", "\n".join(films) + "\n\n", "latin-1"),
            users=write(
                "u.user", "196|49|M|writer|55105\n22|17|F|none|9A02\n3|24|F|other|V3N4P\n4|old|M|writer|1\n", "latin-1"
            ),
        )
    )
    assert read.rows("interactions", "user_id", "item_id", "rating", "timestamp") == [
        (pseudonym("196"), "1", 3.0, 881250949),
        (pseudonym("22"), "2", 4.0, 878887116),
    ]
    assert read.rows("items", "item_id", "title", "categories") == [
        ("1", "Plain Film (1995)", ["Comedy", "Western"]),
        ("2", "L'Été sans fin (1994)", ["Drama"]),
    ]
    assert read.facts("items") == [{"Year": "1995"}, {"Year": "1994"}]
    assert dict(zip(read.tables["users"]["user_id"], read.facts("users"), strict=True)) == {
        pseudonym("196"): {"Gender": "male", "Age group": "45-49", "Occupation": "writer"},
        pseudonym("22"): {"Gender": "female", "Age group": "under 18"},
        pseudonym("3"): {"Gender": "female", "Age group": "18-24"},
    }
    assert read.drops == {
        "rating unparsable": 1,
        "impossible rating": 1,
        "film unparsable": 1,
        "film without a title": 1,
        "user unparsable": 1,
    }
    assert read.at() == [4, 4, 4]


def test_users_of_1m_have_words_and_no_zip_code(write: Callable[..., str]) -> None:
    users = "1::F::1::10::48067\n2::M::56::16::70072-1234\n3::M::25::0::55117\n4::M::45::7\n"
    ratings = "2::1193::5::978300760\n"
    films = "1193::One Flew (Somewhere) (1975)::Drama\n"
    read = Read(
        MovieLens(ratings=write("r.dat", ratings), movies=write("m.dat", films), users=write("users.dat", users))
    )
    assert read.facts("users") == [
        {"Gender": "female", "Age group": "under 18", "Occupation": "school student"},
        {"Gender": "male", "Age group": "56 or older", "Occupation": "self-employed"},
        {"Gender": "male", "Age group": "25-34"},
    ]
    assert read.tables["interactions"]["user_id"][0] == read.tables["users"]["user_id"][1]
    assert not any(code in str(read.tables["users"].to_dicts()) for code in ("48067", "70072", "55117"))
    assert read.drops == {"user unparsable": 1}


TAGS_CSV = """userId,movieId,tag,timestamp
1,1,Pixar,1
2,1,pixar,2
2,1,PIXAR,3
1,1,"fun, really",4
2,1,"fun, really",5
3,1,"fun, really",5
1,1,b,6
2,1,b,6
1,1,a,6
2,1,a,6
1,1,c,6
2,1,c,6
1,1,d,6
2,1,d,6
1,1,said once,6
1,1,My DVDs,6
2,1,My DVDs,6
1,1,1999!,6
1,2,said twice by one,6
1,2,said twice by one,7
1,2,,7
1,x
"""


@pytest.mark.parametrize("form", ["csv", "dat"])
def test_tags_are_what_several_people_say_of_a_film(write: Callable[..., str], form: str) -> None:
    films, tags = "movieId,title,genres\n1,A (1999),Drama\n2,B,Drama\n", TAGS_CSV
    if form == "dat":
        films = "1::A (1999)::Drama\n2::B::Drama\n"
        tags = tags.split("\n", 1)[1].replace('"', "").replace("fun, really", "fun:: really").replace(",", "::")
    read = Read(MovieLens(ratings="", movies=write(f"m.{form}", films), tags=write(f"t.{form}", tags)))
    comma = "fun:: really" if form == "dat" else "fun, really"
    assert read.facts("items") == [{"Year": "1999", "Tags": f"{comma}, a, b, c, d"}, {}]
    assert len({"fun", "a", "b", "c", "d"}) == TAGS  # pixar, as often used, comes after them
    assert read.drops == {
        "tag that is a note of its writer or no word": 3,
        "tag that one person alone gave a film": 2,
        "tag unparsable": 2,
    }


def test_parts_are_files_and_give_what_the_whole_gives(write: Callable[..., str]) -> None:
    for number in (1, 2):
        write(f"ratings-{number}.csv", f"userId,movieId,rating,timestamp\n{number},1,4.0,964982703\n")
    reader = MovieLens(
        ratings=str(Path(write("m.csv", "movieId,title,genres\n1,A (1999),Drama\n")).parent / "ratings-*.csv"),
        movies=write("m.csv", "movieId,title,genres\n1,A (1999),Drama\n"),
        tags=write("tags.csv", TAGS_CSV),
    )
    parts = reader.parts()
    assert [sorted(batch.table for batch in part.batches(USER_KEY)) for part in parts] == [
        ["interactions"],
        ["interactions"],
        ["items"],
    ]
    whole = list(reader.batches(USER_KEY))
    apart = [batch for part in parts for batch in part.batches(USER_KEY)]
    assert [(a.table, a.frame.rows(), a.drops) for a in whole] == [(a.table, a.frame.rows(), a.drops) for a in apart]


@pytest.mark.parametrize(
    ("field", "text", "error"),
    [
        ("ratings", u_item(1, "Plain Film (1995)", "01-Jan-1995") + "\n", "holds films or users of 100K"),
        ("users", "1\t2\t3\t881250949\n1\t3\t3\t881250950\n", r"line 1: expected 5 values .* the right file\?"),
        ("movies", "1::3::F::5::1\n" * 2, None),
        ("movies", "1::F\n" * 2, r"line 1: expected 3 values between '::', and so in every line"),
    ],
)
def test_another_file_of_the_release_is_refused(
    write: Callable[..., str], field: str, text: str, error: str | None
) -> None:
    reader = MovieLens(**{"ratings": "", "movies": "", field: write("given", text)})
    if error is None:  # a title may hold the separator
        assert len(Read(reader).tables["items"]) == 2
        return
    with pytest.raises(RecfoundError, match=error):
        Read(reader)


@pytest.mark.parametrize("tag", ["clown", "world war i", "known twist", "video game adaptation", "coal mine"])
def test_a_tag_of_the_film_is_no_note_of_its_writer(write: Callable[..., str], tag: str) -> None:
    tags = "".join(f"{user}::1::{tag}::9\n" for user in (1, 2))
    read = Read(MovieLens(ratings="", movies=write("m.dat", "1::A::Drama\n"), tags=write("t.dat", tags)))
    assert read.facts("items") == [{"Tags": tag}] and not read.drops


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("A (1999)", "1999"),
        ("A (Or (1950)) (2001-2003)", "2001"),
        ("A (2006–)", "2006"),
        ("A (1980- )", "1980"),
        ("A (1995) (V)", "1995"),
        ("2012", ""),
        ("A (99)", ""),
    ],
)
def test_year_is_that_of_the_title(write: Callable[..., str], title: str, year: str) -> None:
    read = Read(MovieLens(ratings="", movies=write("m.dat", f"1::{title}::Drama\n")))
    assert read.facts("items") == [{"Year": year} if year else {}]


def test_ratings_are_read_fast(write: Callable[..., str]) -> None:
    lines = "".join(f"{row // 150},{row % 60_000},3.5,{964982703 + row}\n" for row in range(300_000))
    reader = MovieLens(ratings=write("ratings.csv", "userId,movieId,rating,timestamp\n" + lines), movies="")
    started = time.process_time()
    rows = sum(len(batch.frame) for batch in reader.batches(USER_KEY))
    assert rows == 300_000 and time.process_time() - started < 1


@pytest.mark.corpora
def test_real_slices(corpora: Path) -> None:
    small = corpora / "movielens/ml-latest-small"
    read = Read(
        MovieLens(ratings=str(small / "ratings.csv"), movies=str(small / "movies.csv"), tags=str(small / "tags.csv"))
    )
    assert (len(read.tables["interactions"]), len(read.tables["items"])) == (100_836, 9_742)
    assert not read.unparsable and set(read.drops) == {
        "tag that is a note of its writer or no word",
        "tag that one person alone gave a film",
    }
    facts = read.facts("items")
    assert sum("Year" in fact for fact in facts) == len(facts) - 12 and sum("Tags" in fact for fact in facts) > 40
    million = corpora / "movielens/ml-1m"
    read = Read(
        MovieLens(
            ratings=str(million / "sample_movielens_rating.dat"),
            movies=str(million / "movies.dat"),
            users=str(million / "users.dat"),
        )
    )
    users = read.tables["users"]
    assert len(users) == 6_040 == users["user_id"].n_unique() and not read.drops
    assert read.tables["interactions"].join(users, on="user_id", how="anti").is_empty()
    told = users.explode("facts").unnest("facts")
    assert set(told["name"]) == {"Gender", "Age group", "Occupation"}
    assert told.filter(pl.col("value").str.contains(r"\d{5}")).is_empty()
