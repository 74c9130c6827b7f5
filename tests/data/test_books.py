"""goodbooks-10k and BookCrossing in their published forms."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from reading import Read, pseudonym

from recfound_data.corpora.book_crossing import BookCrossing
from recfound_data.corpora.goodbooks import GENRES, MOST_GENRES, Goodbooks
from recfound_data.errors import RecfoundError

BOOKS = (
    "book_id,goodreads_book_id,best_book_id,work_id,books_count,isbn,isbn13,authors,original_publication_year,"
    "original_title,title,language_code,average_rating,ratings_count,work_ratings_count,work_text_reviews_count,"
    "ratings_1,ratings_2,ratings_3,ratings_4,ratings_5,image_url,small_image_url\n"
)


def book(number: int, goodreads: int, authors: str, year: str, title: str, language: str, rating: str = "4.1") -> str:
    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    head = [str(number), str(goodreads), str(goodreads), "7", "3", "439023483", "9.78043902348e+12"]
    tail = [rating, "10", "11", "2", "1", "1", "1", "1", "7", "https://example.org/m.jpg", "https://example.org/s.jpg"]
    return ",".join([*head, quoted(authors), year, quoted(title), quoted(title), language, *tail]) + "\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def file(name: str, text: str, encoding: str = "utf-8") -> str:
        (tmp_path / name).write_bytes(text.encode(encoding))
        return str(tmp_path / name)

    return file


def test_goodbooks_ratings_are_in_the_order_of_their_rows(write: Callable[..., str]) -> None:
    ratings = "user_id,book_id,rating\n1,258,5\n2,4081,4\n1,260,0\n1,,3\n2,260,1\n"
    read = Read(Goodbooks(ratings=write("ratings.csv", ratings), books=""))
    rows = read.rows("interactions", "user_id", "item_id", "rating", "timestamp")
    assert [row[:3] for row in rows] == [
        (pseudonym("1"), "258", 5.0),
        (pseudonym("2"), "4081", 4.0),
        (pseudonym("2"), "260", 1.0),
    ]
    assert [row[3] for row in rows] == sorted({row[3] for row in rows})
    assert read.drops == {"impossible rating": 1, "rating unparsable": 1} and read.at() == [5]


def test_goodbooks_wishes_have_no_rating_and_come_before_all_ratings(write: Callable[..., str]) -> None:
    ratings = write("ratings.csv", "user_id,book_id,rating\n1,258,5\n2,4081,4\n")
    wishes = write("to_read.csv", "user_id,book_id\n1,112\n1,258\n2,235\n9,\n")
    read = Read(Goodbooks(ratings=ratings, books="", to_read=wishes))
    rated = read.tables["interactions"].filter(pl.col("rating").is_not_null())
    wished = read.tables["interactions"].filter(pl.col("rating").is_null())
    assert wished.select("user_id", "item_id").rows() == [(pseudonym("1"), "112"), (pseudonym("2"), "235")]
    assert wished["timestamp"].max() < rated["timestamp"].min() and wished["timestamp"].is_sorted()
    assert len(rated) == 2
    assert read.drops == {"wish for a book rated later": 1, "wish unparsable": 1}


def test_goodbooks_books_and_their_facts(write: Callable[..., str]) -> None:
    books = [
        book(1, 100, "Ann  Author, Ian Illustrator", "1997.0", 'The "Best" Book (Series, #1)', "eng"),
        book(2, 200, "Homer", "-720.0", "A Long Way", "en-GB", "4"),
        book(3, 300, "N. Nobody", "", "Untold", "mul", ""),
        "4,400\n",
        book(0, 500, "X", "1", "Y", "eng").replace("0,", ",", 1),
    ]
    read = Read(Goodbooks(ratings="", books=write("books.csv", BOOKS + "".join(books))))
    assert read.rows("items", "item_id", "title", "brand", "categories") == [
        ("1", 'The "Best" Book (Series, #1)', "Ann Author", []),
        ("2", "A Long Way", "Homer", []),
        ("3", "Untold", "N. Nobody", []),
    ]
    assert read.facts("items") == [
        {"Authors": "Ann Author, Ian Illustrator", "Year": "1997", "Language": "English", "Average rating": "4.1 of 5"},
        {"Author": "Homer", "Year": "720 BC", "Language": "English", "Average rating": "4 of 5"},
        {"Author": "N. Nobody"},
    ]
    assert read.drops == {"record unparsable": 1, "book without id": 1}


def test_goodbooks_genres_are_shelves_that_name_one(write: Callable[..., str]) -> None:
    names = ["to-read", "fantasy", "favorites", "sci-fi", "science-fiction", "owned", "2015", "a-author", "horror",
             "young-adult", "romance", "ya", "classics", "war"]  # fmt: skip
    counts = {
        100: [9000, 40, 900, 30, 25, 800, 700, 600, 5, 20, 10, 15, 9, -1],  # horror is under a tenth of the leading one
        200: [50, 0, 3, 0, 0, 2, 1, 1, 0, 0, 0, 0, 0, 0],
        999: [0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],  # not among the books
    }
    tags = "tag_id,tag_name\n" + "".join(f"{number},{name}\n" for number, name in enumerate(names))
    shelves = [f"{of},{tag},{count}\n" for of, row in counts.items() for tag, count in enumerate(row) if count]
    books = book(1, 100, "A", "1999.0", "One", "eng") + book(2, 200, "B", "1999.0", "Two", "eng")
    read = Read(
        Goodbooks(
            ratings="",
            books=write("books.csv", BOOKS + books),
            tags=write("tags.csv", tags),
            book_tags=write("book_tags.csv", "goodreads_book_id,tag_id,count\n" + "".join(shelves)),
        )
    )
    assert read.rows("items", "item_id", "categories") == [
        ("1", ["Science fiction", "Fantasy", "Young adult", "Romance"]),
        ("2", []),
    ]
    assert MOST_GENRES == 4
    assert read.drops == {"shelf that names no genre": len([c for row in counts.values() for c in row if c]) - 9}


def test_goodbooks_shelves_mean_one_genre_each() -> None:
    shelves = [shelf for meant in GENRES.values() for shelf in meant]
    assert len(shelves) == len(set(shelves))
    assert not {"to-read", "favorites", "owned", "currently-reading", "books-i-own", "library"} & set(shelves)


def test_goodbooks_shelves_need_their_names() -> None:
    with pytest.raises(ValueError, match="belong together"):
        Goodbooks(ratings="r.csv", books="b.csv", book_tags="book_tags.csv")


# BookCrossing

DUMP_BOOKS = r""""ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"S";"M";"L"
"0195153448";"Plain Book; With a Semicolon";"Ann Author";"2002";"Pub &amp; Sons";"http://a";"http://b";"http://c"
"078946697X";"Broken Readers (Level 4)\";Mike Writer";"2000";"DK Pub";"http://a";"http://b";"http://c"
"0-7894-6697-1";"The \"Quoted\"";"Zoë Ü";"0";"";"http://a";"http://b";"http://c"
"9000000001";"Le CafÃ© d'Ã?¤";"";"2050";"P";"http://a";"http://b";"http://c"
"9000000002";"Shifted";"A";"DK Publishing";"P";"http://a";"http://b";"http://c"
"9000000003";"Half"
"""
DUMP_RATINGS = r""""User-ID";"ISBN";"Book-Rating"
"1";"0195153448";"0"
"2";"078946697x";"7"
"2";"\"0789466971\"";"10"
"2";"0195153448";"11"
"2";"0195153448"
"""
DUMP_USERS = r""""User-ID";"Location";"Age"
"1";"nyc, new york, usa";NULL
"2";"lyon, rhône, \"france\"";"18"
"3";"n/a, n/a, n/a";"250"
"4";"springfield";"34"
"""


def test_book_crossing_dump(write: Callable[..., str]) -> None:
    read = Read(
        BookCrossing(
            ratings=write("BX-Book-Ratings.csv", DUMP_RATINGS, "latin-1"),
            books=write("BX-Books.csv", DUMP_BOOKS, "latin-1"),
            users=write("BX-Users.csv", DUMP_USERS, "latin-1"),
        )
    )
    assert read.rows("interactions", "user_id", "item_id", "rating") == [
        (pseudonym("1"), "0195153448", None),
        (pseudonym("2"), "078946697X", 3.5),
        (pseudonym("2"), "0789466971", 5.0),
    ]
    assert read.rows("items", "item_id", "title", "brand") == [
        ("0195153448", "Plain Book; With a Semicolon", "Ann Author"),
        ("078946697X", "Broken Readers (Level 4)", "Mike Writer"),
        ("0789466971", 'The "Quoted"', "Zoë Ü"),
        ("9000000001", "Le Café d'ä", None),
    ]
    assert read.facts("items") == [
        {"Year": "2002", "Publisher": "Pub & Sons"},
        {"Year": "2000", "Publisher": "DK Pub"},
        {},
        {"Publisher": "P"},
    ]
    assert read.facts("users") == [
        {"Country": "United States"},
        {"Age group": "18-24", "Country": "France"},
        {},
        {"Age group": "25-34"},
    ]
    assert read.drops == {"rating unparsable": 1, "impossible rating": 1, "book unparsable": 2}
    assert read.at() == [6, 6, 7]


TABLE_BOOKS = """ISBN,Book-Title,Book-Author,Year-Of-Publication,Publisher,Image-URL-S
0195153448,"Plain Book, With a Comma",Ann Author,2002,Pub,http://a
789466971,Its Zero Lost,Dan,1999.0,Pub,http://a
078946697X,"Moved On ""\\"";Mike Writer",2000,DK Pub,http://a,http://b
0030844924,No Year,Lyn,,,http://a
"""


@pytest.mark.parametrize("separator", [",", ";"])
def test_book_crossing_as_tables(write: Callable[..., str], separator: str) -> None:
    users = [("user_id", "Location", "AGE"), ("1", '"lyon, rhône, france"', "NULL"), ("2", "springfield", "34.0")]
    users.append(("3", '"sharjah, sharjah, u.a.e"', "0"))
    ratings = [("userID", "ISBN", "bookRating"), ("1", "195153448", "0"), ("2", "0789466971", "8"), ("2", "x", "11")]
    read = Read(
        BookCrossing(
            ratings=write("Ratings.csv", "".join(f"{separator.join(row)}\n" for row in ratings)),
            books=write("Books.csv", TABLE_BOOKS),
            users=write("Users.csv", "".join(f"{separator.join(row)}\n" for row in users), "latin-1"),
        )
    )
    assert read.rows("interactions", "user_id", "item_id", "rating") == [
        (pseudonym("1"), "0195153448", None),
        (pseudonym("2"), "0789466971", 4.0),
    ]
    assert read.rows("items", "item_id", "title", "brand") == [
        ("0195153448", "Plain Book, With a Comma", "Ann Author"),
        ("0789466971", "Its Zero Lost", "Dan"),
        ("0030844924", "No Year", "Lyn"),
    ]
    assert [fact.get("Year") for fact in read.facts("items")] == ["2002", "1999", None]
    assert read.facts("users") == [{"Country": "France"}, {"Age group": "25-34"}, {"Country": "United Arab Emirates"}]
    assert read.drops == {"impossible rating": 1, "book with an address for its publisher": 1}


def test_book_crossing_of_another_file_says_what_is_missing(write: Callable[..., str]) -> None:
    other = write("books.csv", "book_id,isbn,title\n1,0195153448,A\n")
    with pytest.raises(RecfoundError, match="line 1: has no column 'User-ID'; it has book_id, isbn, title"):
        Read(BookCrossing(ratings=other, books=""))


COVERS = "http://images.example.org/S.jpg\thttp://images.example.org/M.jpg\thttp://images.example.org/L.jpg\t"
TABBED_BOOKS = f"""Book_ID\tISBN\tBook-Title\tBook-Author\tYear-Of-Publication\tPublisher\tURL-S\tURL-M\tURL-L
1\t0060973129\tPlain\tAnn Author\t1991\tPress\t{COVERS}
2\t0393045218\tSalt &amp\t Pepper\tE. Writer\t1999\tW. N. &amp\t Company\t{COVERS}
3\t0374423296\t3 Novels \\Big\\: One\t Two\t Three\tDan\t1997\tHouse &amp\t\t{COVERS}
4\t0030844924\tHigh point\t: A View\tLyn\t1971\tHolt\t{COVERS}
5\t0030844925\tNo year\tLyn\t\tHolt\t{COVERS}
6\t0030844926\tHalf
"""


def test_book_crossing_cleaned_edition(write: Callable[..., str]) -> None:
    read = Read(
        BookCrossing(
            ratings=write("book_ratings.dat", "user\titem\trating\n1\t3\t7.000000\n1\t2\t10.000000\n"),
            books=write("items_info.dat", TABBED_BOOKS),
            users=write("users_info.dat", "User-ID\tLocation\tAge\n1\tking of prussia, ,\t36\t\n2\tna, , uk\t\t\n"),
            history=write("book_history.dat", "user\titem\taccessed\n1\t3\t1\n1\t1\t1\n2\t2\t1\n2\tx\n"),
        )
    )
    assert read.rows("interactions", "user_id", "item_id", "rating") == [
        (pseudonym("1"), "3", 3.5),
        (pseudonym("1"), "2", 5.0),
        (pseudonym("1"), "1", None),
        (pseudonym("2"), "2", None),
    ]
    assert read.drops == {"history of a rated book": 1, "history unparsable": 1, "book unparsable": 1}
    titles = [" ".join(title.replace("&amp;", "&").split()) for title in read.tables["items"]["title"]]
    assert titles == ["Plain", "Salt & Pepper", '3 Novels "Big": One; Two; Three', "High point : A View", "No year"]
    assert read.tables["items"]["brand"].to_list() == ["Ann Author", "E. Writer", "Dan", "Lyn", "Lyn"]
    assert [fact.get("Year") for fact in read.facts("items")] == ["1991", "1999", "1997", "1971", None]
    assert [fact["Publisher"] for fact in read.facts("items")][1] == "W. N. & Company"
    assert read.facts("users") == [{"Age group": "35-44"}, {"Country": "United Kingdom"}]


def test_book_crossing_order_is_drawn_and_not_that_of_the_file(write: Callable[..., str]) -> None:
    rows = [f'"{user}";"{isbn:010d}";"8"\n' for user in range(40) for isbn in range(5)]
    header = DUMP_RATINGS.split("\n", 1)[0] + "\n"
    one = Read(BookCrossing(ratings=write("a.csv", header + "".join(rows)), books="")).tables["interactions"]
    turned = Read(BookCrossing(ratings=write("b.csv", header + "".join(rows[::-1])), books="")).tables["interactions"]
    assert one.sort("user_id", "item_id").equals(turned.sort("user_id", "item_id"))
    last = one.sort("timestamp").group_by("user_id").last()
    assert last["item_id"].n_unique() == 5 and one["timestamp"].n_unique() == len(one)


def test_no_place_but_a_country_is_read(write: Callable[..., str]) -> None:
    places = ["rome, lazio, rome", "paris", "10115 berlin", "far away...", ", ,", "a@b.org, x, germany,"]
    users = "User-ID\tLocation\tAge\n" + "".join(f"{n}\t{place}\t\t\n" for n, place in enumerate(places))
    assert Read(BookCrossing(ratings="", books="", users=write("users_info.dat", users))).facts("users") == [{}] * 6


@pytest.mark.corpora
def test_real_goodbooks(corpora: Path) -> None:
    read = Read(Goodbooks(ratings="", books=str(corpora / "books/books.csv")))
    items = read.tables["items"]
    assert len(items) == 10_000 == items["item_id"].n_unique() and not read.drops
    assert items.filter(pl.col("title").fill_null("") == "").is_empty()
    facts = read.facts("items")
    assert sum("Year" in fact for fact in facts) == 10_000 - 21 and sum("Language" in fact for fact in facts) > 8_900


@pytest.mark.corpora
def test_real_book_crossing(corpora: Path) -> None:
    path = f"{corpora}/books/book_crossing.zip/book_crossing/{{}}"
    files = ("book_ratings.dat", "items_info.dat", "users_info.dat", "book_history.dat")
    ratings, books, users, history = (path.format(name) for name in files)
    read = Read(BookCrossing(ratings=ratings, books=books, users=users, history=history))
    interactions, items = read.tables["interactions"], read.tables["items"]
    assert len(interactions) == 272_678 == len(interactions.unique(["user_id", "item_id"]))
    assert interactions["rating"].drop_nulls().len() == 62_656 and interactions["rating"].max() == 5
    assert len(items) == 17_384 and len(read.tables["users"]) == 2_946
    assert interactions.join(items, on="item_id", how="anti").is_empty()
    assert read.drops == {"history of a rated book": 62_656}
    assert items.filter(pl.any_horizontal(pl.col("title", "brand").str.contains(r"Ã|\\"))).height < 20
