"""Which releases there are of which corpus, the files of each, and how a recipe names them.

No address could be tried from where this list was made: `tried` is None until somebody does. Checksums are facts from
the registry of the PyPI package `datarec` 1.5.7, from GroupLens's `.md5` files as they are cited, and from ParlAI's
list of the same files. In `datarec` one MD5 sum stands for ten categories of Amazon Reviews, another for their
metadata, and one size for three files: these cannot be true of more than one, so such sums and all sizes are left out.
Its releases called 2018 on snap.stanford.edu are those of 2014.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recfound_data.corpora import CORPORA
from recfound_data.downloading import amazon_files


@dataclass(frozen=True)
class RemoteFile:
    """One file at one address.

    Attributes:
        address: where it is.
        name: its name in the release's folder.
        size: in bytes, where it is known.
        sha256: in hexadecimal, empty where it is not known.
        md5: in hexadecimal, empty where it is not known.
        tried: the day on which the address was last seen to give the file; None where nobody tried.
        take: of an archive, patterns of the files to unpack, without the folder that holds them all; an archive
            without patterns stays packed.
        peel: take one layer of gzip off where two are around it.
    """

    address: str
    name: str
    size: int | None = None
    sha256: str = ""
    md5: str = ""
    tried: str | None = None
    take: tuple[str, ...] = ()
    peel: bool = False


@dataclass(frozen=True)
class Release:
    """One release or part of a corpus that a recipe names as one entry.

    Attributes:
        corpus: name of its reader.
        version: its name within the corpus.
        files: to be fetched.
        entry: keys of the recipe's entry; those of paths are relative to the release's folder.
        note: what to know before it is used: a form to fill in, a part that has to be fetched by hand.
    """

    corpus: str
    version: str
    files: tuple[RemoteFile, ...]
    entry: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        """How the command line names it."""
        return f"{self.corpus}/{self.version}"

    @property
    def page(self) -> str:
        """The page with the terms."""
        return CORPORA[self.corpus].terms.address


def _movielens() -> list[Release]:
    at = "https://files.grouplens.org/datasets/movielens"
    old = ("u.data", "u.item", "u.user", "README")
    dat = ("ratings.dat", "movies.dat", "users.dat", "README")
    tables = ("ratings.csv", "movies.csv", "tags.csv", "README*")
    known: tuple[tuple[str, tuple[str, ...], str, int | None], ...] = (
        ("ml-100k", old, "0e33842e24a9c977be4e0107933c0723", None),
        ("ml-1m", dat, "c4d9eecfca2ab87c1945afe126590906", None),
        ("ml-10m", ("ratings.dat", "movies.dat", "tags.dat", "README*"), "ce571fd55effeba0271552578f2648bd", 65566137),
        ("ml-20m", tables, "cd245b17a1ae2cc31bb14903e1204af3", None),
        ("ml-25m", tables, "6b51fb2759a8657d3bfcbfc42b592ada", 261978986),
        ("ml-32m", tables, "d472be332d4daa821edc399621853b57", 238950008),
        ("ml-latest", tables, "", None),
        ("ml-latest-small", tables, "", None),
    )
    releases = []
    for version, take, md5, size in known:
        file = RemoteFile(f"{at}/{version}.zip", f"{version}.zip", size=size, md5=md5, take=take)
        entry = dict(zip(("ratings", "movies"), take, strict=False))
        entry |= {"users": take[2]} if take in (old, dat) else {"tags": take[2]}
        note = "changes from time to time, so no checksum is known" if "latest" in version else ""
        releases.append(Release("movielens", version, (file,), {"name": version.replace("-", "_")} | entry, note))
    return releases


def _amazon() -> list[Release]:
    form = "its publisher asks to fill in a form first"
    releases = []
    for year, version, (reviews, metadata), note in amazon_files.releases():
        entry = {"name": version.lower(), "reviews": reviews.name, "metadata": metadata.name}
        files = tuple(RemoteFile(file.address, file.name, md5=file.md5) for file in (reviews, metadata))
        releases.append(Release(f"amazon_reviews_{year}", version, files, entry, form if year == 2018 else note))
    return releases


def _questions() -> list[Release]:
    amazonqa = "https://amazon-qa.s3-us-west-2.amazonaws.com"
    files = tuple(RemoteFile(f"{amazonqa}/{name}-qar.jsonl", f"{name}-qar.jsonl") for name in ("train", "val"))
    by_hand = "the test file is on Google Drive: follow the page and put test-qar_all.jsonl beside the others"
    releases = [Release("amazonqa", "reviews", files, {"questions": "*-qar*.jsonl"}, by_hand)]
    for version, file in amazon_files.question_files():
        question_file = RemoteFile(file.address, file.name, sha256=file.sha256)
        entry = {"name": f"questions_{version}".lower(), "questions": file.name}
        note = "titles come from Amazon's metadata: download amazon_reviews_2014 too, and name it under metadata"
        releases.append(Release("mcauley_qa", version, (question_file,), entry, note))
    pqa = _github("amazon-science/contextual-product-qa", ("ePQA/*.csv", "hetPQA/*/*.csv", "LICENSE"))
    hetpqa = {"answers": "hetPQA/answer_generation/*.csv", "ranking": "hetPQA/evidence_ranking/*.csv"}
    releases += [
        Release("contextual_pqa", "epqa", (pqa,), {"name": "epqa", "questions": "ePQA/*.csv"}),
        Release("contextual_pqa", "hetpqa", (pqa,), {"name": "hetpqa"} | hetpqa),
        Release(
            "subjqa",
            "all",
            (_github("megagonlabs/SubjQA", ("SubjQA/*/splits/*.csv", "Readme.md")),),
            {"questions": "SubjQA/*/splits/*.csv"},
        ),
    ]
    return releases


def _dialogues() -> list[Release]:
    mudoco = _github("apple/ml-cread", ("MuDoCo-QR-dataset/*.json", "LICENSE"))
    alexa = _github("alexa/alexa-dataset-contextual-query-rewrite", ("cqr_kvret_*", "LICENSE"))
    return [
        Release("mudoco_qr", "all", (mudoco,), {"dialogues": "MuDoCo-QR-dataset/*.json"}),
        Release("alexa_cqr", "public", (alexa,), {"dialogues": "cqr_kvret_*_public.json"}),
    ]


def _books() -> list[Release]:
    at = "https://raw.githubusercontent.com/zygmuntz/goodbooks-10k/master"
    names = ("ratings", "books", "book_tags", "tags", "to_read")
    goodbooks = tuple(RemoteFile(f"{at}/{name}.csv", f"{name}.csv") for name in names)
    dump = RemoteFile("http://www2.informatik.uni-freiburg.de/~cziegler/BX/BX-CSV-Dump.zip", "BX-CSV-Dump.zip")
    cleaned = RemoteFile(
        "https://github.com/caserec/Datasets-for-Recommender-Systems/raw/master/"
        "Processed%20Datasets/BookCrossing/book_crossing.zip",
        "book_crossing.zip",
    )
    tables = {"ratings": "BX-Book-Ratings", "books": "BX-Books", "users": "BX-Users"}
    parts = {"ratings": "book_ratings", "books": "items_info", "users": "users_info", "history": "book_history"}
    inside = {key: f"BX-CSV-Dump.zip/{name}.csv" for key, name in tables.items()}
    cleaned_inside = {key: f"book_crossing.zip/book_crossing/{name}.dat" for key, name in parts.items()}
    gone = (
        "the official address has been out of service at times; Kaggle has the same tables as jirakst/bookcrossing, "
        "after a login: put them into a folder and name them in the recipe"
    )
    return [
        Release("goodbooks", "10k", goodbooks, {name: f"{name}.csv" for name in names}),
        Release("book_crossing", "dump", (dump,), inside, gone),
        Release("book_crossing", "cleaned", (cleaned,), cleaned_inside),
    ]


def _products() -> list[Release]:
    esci = "https://github.com/amazon-science/esci-data/raw/main/shopping_queries_dataset"
    queries = {key: f"shopping_queries_dataset_{key}.parquet" for key in ("examples", "products")}
    judged = tuple(RemoteFile(f"{esci}/{name}", name) for name in queries.values())
    splits = {"train": "train", "validation": "validation", "test": "test"}
    samples = "https://raw.githubusercontent.com/anhaidgroup/deepmatcher/master/examples/sample_data"
    inline = {split: f"amz_goog_{name}.csv" for split, name in splits.items()}
    tables = {"left": "tableA.csv", "right": "tableB.csv", "train": "train.csv", "validation": "valid.csv"}
    tables["test"] = "test.csv"
    leipzig = {"left": "Amazon.csv", "right": "GoogleProducts.csv"}
    leipzig["matches"] = "Amzon_GoogleProducts_perfectMapping.csv"
    matched = RemoteFile(
        "http://pages.cs.wisc.edu/~anhai/data1/deepmatcher_data/Structured/Amazon-Google/amazon_google_exp_data.zip",
        "amazon_google_exp_data.zip",
        take=tuple(tables.values()),
    )
    original = RemoteFile(
        "https://dbs.uni-leipzig.de/files/datasets/Amazon-GoogleProducts.zip",
        "Amazon-GoogleProducts.zip",
        take=tuple(leipzig.values()),
    )
    return [
        Release("shopping_queries", "large", judged, queries),
        Release(
            "amazon_google",
            "inline",
            tuple(RemoteFile(f"{samples}/{name}", name) for name in inline.values()),
            inline,
        ),
        Release("amazon_google", "tables", (matched,), tables),
        Release("amazon_google", "leipzig", (original,), leipzig),
    ]


def _attributes() -> list[Release]:
    mave = "https://github.com/google-research-datasets/MAVE/raw/main/labels"
    labels = {"positives": "mave_positives_labels.jsonl", "negatives": "mave_negatives_labels.jsonl"}
    metadata = RemoteFile(
        f"{amazon_files.UCSD}/amazon_v2/metaFiles/All_Amazon_Meta.json.gz", "All_Amazon_Meta.json.gz", peel=True
    )
    offers = "data/processed_datasets/wdc"
    pave = _github("wbsg-uni-mannheim/wdc-pave", (f"{offers}/*.jsonl",))
    triples = "https://raw.githubusercontent.com/lanmanok/ACL19_Scaling_Up_Open_Tagging/master/publish_data.txt"
    return [
        Release(
            "mave",
            "labels",
            (*(RemoteFile(f"{mave}/{name}", name) for name in labels.values()), metadata),
            {**labels, "metadata": metadata.name},
            "the metadata of all of Amazon Reviews 2018 comes with it: by far the largest of these files",
        ),
        Release("wdc_pave", "own", (pave,), {"train": f"{offers}/train_large.jsonl", "test": f"{offers}/test.jsonl"}),
        Release("ae_110k", "triples", (RemoteFile(triples, "publish_data.txt"),), {"triples": "publish_data.txt"}),
    ]


def _github(repository: str, take: tuple[str, ...]) -> RemoteFile:
    """Return the archive that GitHub makes of a repository as it is now; its bytes, and so its checksum, may change."""
    return RemoteFile(f"https://github.com/{repository}/archive/HEAD.zip", f"{repository.split('/')[1]}.zip", take=take)


_BY_HAND = [
    Release(
        "recfound_release",
        "all",
        (),
        note="needs no download: name hf://datasets/Anonqwq/RecFound/*.json* under samples, or fetch it with "
        "`hf download Anonqwq/RecFound --repo-type dataset --local-dir RecFound`",
    ),
    Release(
        "recbole",
        "any",
        (),
        note="the page links folders on Google Drive and Baidu, a data set each: fetch one with a browser, unpack it "
        "and name its .inter and .item in the recipe",
    ),
]

RELEASES: tuple[Release, ...] = (
    *_movielens(),
    *_amazon(),
    *_books(),
    *_products(),
    *_questions(),
    *_dialogues(),
    *_attributes(),
    *_BY_HAND,
)
"""All releases; those without files have to be fetched by hand, as their note says."""
