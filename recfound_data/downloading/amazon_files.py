"""Files of Amazon Reviews and of Amazon's questions: a category of a year is two files, or one of questions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"


@dataclass(frozen=True)
class Listed:
    """A file as the lists below give it: address, name and checksum, where one is known."""

    address: str
    name: str
    md5: str = ""
    sha256: str = ""


_OF_2014 = [
    "Amazon_Instant_Video",
    "Apps_for_Android",
    "Automotive",
    "Baby",
    "Beauty",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Grocery_and_Gourmet_Food",
    "Health_and_Personal_Care",
    "Home_and_Kitchen",
    "Kindle_Store",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Sports_and_Outdoors",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Video_Games",
]
_OF_2018 = [
    "All_Beauty",
    "AMAZON_FASHION",
    "Appliances",
    "Arts_Crafts_and_Sewing",
    "Automotive",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Gift_Cards",
    "Grocery_and_Gourmet_Food",
    "Home_and_Kitchen",
    "Industrial_and_Scientific",
    "Kindle_Store",
    "Luxury_Beauty",
    "Magazine_Subscriptions",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Prime_Pantry",
    "Software",
    "Sports_and_Outdoors",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Video_Games",
]
_OF_2023 = [
    "All_Beauty",
    "Amazon_Fashion",
    "Appliances",
    "Arts_Crafts_and_Sewing",
    "Automotive",
    "Baby_Products",
    "Beauty_and_Personal_Care",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Gift_Cards",
    "Grocery_and_Gourmet_Food",
    "Handmade_Products",
    "Health_and_Household",
    "Health_and_Personal_Care",
    "Home_and_Kitchen",
    "Industrial_and_Scientific",
    "Kindle_Store",
    "Magazine_Subscriptions",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Software",
    "Sports_and_Outdoors",
    "Subscription_Boxes",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Unknown",
    "Video_Games",
]
_MD5_OF_2014 = {
    "meta_Amazon_Instant_Video.json.gz": "7cdb457e6e1dfe714f4c5cf6d1c6ada9",
    "meta_Apps_for_Android.json.gz": "3898627799c62c1cc059f9d34e270fce",
    "meta_Automotive.json.gz": "a8117e02d5660f2b5ae12d65a355e858",
    "meta_Books.json.gz": "47428d2133b14021a5244515c9cea918",
    "meta_CDs_and_Vinyl.json.gz": "1e4858192e5b2329ffb1587ff9811bd2",
    "meta_Clothing_Shoes_and_Jewelry.json.gz": "db5664f28f11c9e48c64bd1e9756bba1",
    "meta_Digital_Music.json.gz": "461823323a196bfa0b9873c2ab6c35f1",
    "meta_Electronics.json.gz": "b39b77b4c980cca078ec2b93dfcba786",
    "meta_Grocery_and_Gourmet_Food.json.gz": "1e2289e9f4226beca49dd4bdfbb9f758",
    "meta_Health_and_Personal_Care.json.gz": "a31cd55aecd75a7cfb2af3c1cd58830e",
    "meta_Home_and_Kitchen.json.gz": "4101ca28c36cc5c360fa98cad71af4a9",
    "meta_Movies_and_TV.json.gz": "53aeb700aaf8a6db84018523f179e203",
    "reviews_Amazon_Instant_Video.json.gz": "a370b10f1bb0117513e6b0306e5bcf0d",
    "reviews_Apps_for_Android.json.gz": "25895600bf2d5ad5b87e786f1b316a8b",
    "reviews_Automotive.json.gz": "5db4ab8ede4662ff1882085867a3de3d",
    "reviews_Books.json.gz": "32b49de9c5ddd1128a4391ca4655c155",
    "reviews_CDs_and_Vinyl.json.gz": "ef133695521485520698362015ff9ff5",
    "reviews_Clothing_Shoes_and_Jewelry.json.gz": "05a574d1ca1334cddfd185f3716369e2",
    "reviews_Digital_Music.json.gz": "bff33d83badd1a4cf965febd04ec4a94",
    "reviews_Electronics.json.gz": "cd51023b71463dd011947691d76093b3",
    "reviews_Grocery_and_Gourmet_Food.json.gz": "1e79f4e6a6421091357919ff6f627304",
    "reviews_Health_and_Personal_Care.json.gz": "e99441304d7da2c682d204d39a531acb",
    "reviews_Home_and_Kitchen.json.gz": "60728fead8339802b1575e395e2096f0",
    "reviews_Movies_and_TV.json.gz": "6e05ca19f4a714d7234b4ac21a59c5a4",
}
_RATINGS_OF_2023 = {
    "Baby_Products": "644025598b2e4eb6dc69b55a7f23c8ae",
    "Beauty_and_Personal_Care": "6b9dfce7fca70dd05e1bcf77c1953c40",
    "Books": "9d5d693dae385efa9053961675e1f14a",
    "Clothing_Shoes_and_Jewelry": "ce282bf3fdd269717486960be26b92e2",
    "Digital_Music": "592aaf8554ad1fec842edee82ba4d9e6",
    "Office_Products": "d4c05697d3acd22d1c23a01b64b25a16",
    "Sports_and_Outdoors": "75e1dfbb3b3014fab914832b734922e6",
    "Toys_and_Games": "542250672811854e9803d90b1f52cc14",
    "Video_Games": "60fdc3e812de871c30d65722e9a91a0a",
}
"""MD5 of the files with ratings alone."""
_QUESTIONS = {
    "Appliances": "9c613a5dfedd1071431faa29de903b1b0e592c5ac1c7861c26d8b69dfda8ac78",
    "Arts_Crafts_and_Sewing": "c9aad6d615294571c1be7ea6a88730829a68e701ca7d1168f4d6b5234c37ac65",
    "Automotive": "ca2da4b9d3afd3e6c915d69b34618bdcf9c6febadd7389f368fb51e9e1585009",
    "Baby": "acca09d58e7b5487c41de1e21f5a4c676f9aaf1b0534cbeb73c2d5a7444231a0",
    "Beauty": "e4e7d28e917fd1b0a605c85eff4c5d3e832a925ab6ed1216147b306984457b90",
    "Cell_Phones_and_Accessories": "2ca990b05fbf1282aeeaab139ca8ad005cd540c0ad198ae2558d43cb01f24b42",
    "Clothing_Shoes_and_Jewelry": "2c8e24b6d89ccc4084c694a6197d862cdfdc90224877e566dc8170c86ba38d68",
    "Electronics": "4ead1073043b6103a3a8eb738a04143f448cd3e200df074ad5071a24ad6bae95",
    "Grocery_and_Gourmet_Food": "438a9b97924098484c73d59e9f47e6bdb7898fdc94ae5fcfead0493a37443817",
    "Health_and_Personal_Care": "5f3564cf88a56fdf6913ca8e0e7e51478ef829b8faff6bec0e33f46e567bcbf6",
    "Home_and_Kitchen": "eefa1f213bb476478c40ab9c2081c7dd0925f2f1df5d3efeb43f6e5715daaeaf",
    "Industrial_and_Scientific": "9ae1e9c2db859061350559d59c44125131d8af1149d6e99f45a73687f67a6b0e",
    "Musical_Instruments": "a677605d6b6e612a485e939855f85c51a3bf1678da56c81ad5799ce1ef70d8bf",
    "Office_Products": "78e895f0df8e647d1c1a0a46f112f57adad9c49584dd48fb90e14648da790025",
    "Patio_Lawn_and_Garden": "30a7bc60b39345a818a91a87f528afd860dc479d97115c4274056219471f5222",
    "Pet_Supplies": "13a6a722f5f1c3209a0296ef87115ad2cc3ffa490b098c278596a0994484ef41",
    "Software": "54847f45ed575611bc3abc88f176491678d1f0c38cad3a15ad5462f99c30e31c",
    "Sports_and_Outdoors": "a513460612695249027345f6cb8bde35d8dca664927582f4a1c429a45e60b62d",
    "Tools_and_Home_Improvement": "fe29b60e01c9867e7f62ea416bee300cd68f6c7230ac518f94f2fb252e322bc8",
    "Toys_and_Games": "231582d4d5aa4959b6344d21ea0bf1b4872aa59645bb9e8107d1056922673dfe",
    "Video_Games": "45d626d00f393e9df0191d12e12fbdce6b6655ad14715bba2f8d9fe58fc7e1c2",
}
"""SHA-256 of the files with one answer to a question, by category."""
_QUESTIONS_ALL = {
    "Automotive": "2a8209571736a56cfef5a3029545b614b3adfae1de166c179a2488f42fac2533",
    "Beauty": "1ac51134997c86cc59380b7f1be1885010dd1dd9e0aac7a503255c4f68bda7d0",
    "Cell_Phones_and_Accessories": "818a0cad91543a508f90ed0b3db11e71c964036a77c896a41cc7aa79283f1940",
    "Clothing_Shoes_and_Jewelry": "47da83867a89fa7ab376040dc82944e74935cc81e1b86a6e3fc053a7a2dfdb32",
    "Electronics": "ab1081838b2f603708c3e6b9983a63f65512f46f1e1e0463f4437c88da0c7663",
    "Grocery_and_Gourmet_Food": "140cdacf2b9bbb27bac0c60dc8a92f1c211cead68879451fac73c5e424bc1dd2",
    "Health_and_Personal_Care": "c14dcd0bf837b3a26463de3cb2db8c3ad81bb262377ddc36610e8b674d49c833",
    "Home_and_Kitchen": "2822abbc06d24aa248c01b0a7edd982c8421c8eabaf5af421ded8eadbaf2dbfd",
    "Musical_Instruments": "e550e0f6a00db32966cb798ee6f3754cf8c16b474ae9ce3b0b8621faa45b4e15",
    "Office_Products": "1ecb9cd8e7ad0f9049b2b0c350ce7eb304a32e685472da1d7da74dd8a5cb411f",
    "Patio_Lawn_and_Garden": "f78d127dbb9499af5f87ded005747061cc44c1114edeec8cae7346e044c697d3",
    "Pet_Supplies": "c0f31cb041a6bbc7dc5f9006c41458f8d9120c949fb6f1e6fe753cec4353e0f1",
    "Sports_and_Outdoors": "521320c8162c17b361b070fe5f3fc8db4c4205508eff757f12fce284cbd555eb",
    "Tools_and_Home_Improvement": "473ba7d623b8c43d832a9d7a3440796edcb4320211ca5b7c5dab69ed56b66a50",
    "Toys_and_Games": "dbeeaef459d266f383fea2845c8c76da6737812724abfb335db6a294870b1b10",
    "Video_Games": "c54bb576b136146a3afa2a80033312b8b5ee6db721918db9875622e348a7c11c",
}
"""SHA-256 of the files with all answers."""


def releases() -> Iterator[tuple[int, str, tuple[Listed, Listed], str]]:
    """Yield each category of each year: the year, its name, its files of reviews and of metadata, and a note.

    2014 has whole categories and, as `<name>_5`, those of users and items with five reviews or more; 2018 has the
    latter alone, 2023 whole categories and, as `<name>_ratings`, some without the texts of the reviews.
    """
    for name in _OF_2014:
        about = _listed_2014(f"meta_{name}.json.gz")
        yield 2014, name, (_listed_2014(f"reviews_{name}.json.gz"), about), ""
        yield 2014, f"{name}_5", (_listed_2014(f"reviews_{name}_5.json.gz"), about), ""
    at = f"{UCSD}/amazon_v2"
    for name in _OF_2018:
        about = Listed(f"{at}/metaFiles2/meta_{name}.json.gz", f"meta_{name}.json.gz")
        yield 2018, f"{name}_5", (Listed(f"{at}/categoryFilesSmall/{name}_5.json.gz", f"{name}_5.json.gz"), about), ""
    at = f"{UCSD}/amazon_2023"
    for name in _OF_2023:
        about = Listed(f"{at}/raw/meta_categories/meta_{name}.jsonl.gz", f"meta_{name}.jsonl.gz")
        yield 2023, name, (Listed(f"{at}/raw/review_categories/{name}.jsonl.gz", f"{name}.jsonl.gz"), about), ""
        if name in _RATINGS_OF_2023:
            address = f"{at}/benchmark/0core/rating_only/{name}.csv.gz"
            ratings = Listed(address, f"{name}.csv.gz", _RATINGS_OF_2023[name])
            yield 2023, f"{name}_ratings", (ratings, about), "ratings without texts: feeds no sentiment_analysis"


def _listed_2014(name: str) -> Listed:
    return Listed(f"{_SNAP}/{name}", name, _MD5_OF_2014.get(name, ""))


def question_files() -> Iterator[tuple[str, Listed]]:
    """Yield the files of questions: `<category>` has one answer to each, `<category>_all` has all answers."""
    for name, sha256 in _QUESTIONS.items():
        yield name, Listed(f"{UCSD}/amazon/qa/qa_{name}.json.gz", f"qa_{name}.json.gz", sha256=sha256)
    for name, sha256 in _QUESTIONS_ALL.items():
        yield f"{name}_all", Listed(f"{UCSD}/amazon/qa/icdm/QA_{name}.json.gz", f"QA_{name}.json.gz", sha256=sha256)
