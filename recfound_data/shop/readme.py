"""The texts that go with a shop: what is in it and planted in it, and the recipe that builds a dataset from it."""

from recfound_data.shop import films, queries, relations, reviews, tastes
from recfound_data.shop.catalogue import DIRT_RATES, faulty_items
from recfound_data.shop.sizes import REVIEWS_PER_USER, Sizes
from recfound_data.shop.taxonomy import ATTRIBUTES, CATEGORY_NAMES, DEPARTMENT_NAMES, KINDS

_RECIPE = """\
seed: {seed}
corpora:
  - {{corpus: amazon_reviews_2018, name: shop, domain: Shop, reviews: amazon_reviews_2018/Shop_5.json.gz, metadata: amazon_reviews_2018/meta_Shop.json.gz}}
  - {{corpus: movielens, name: shop_films, ratings: movielens/ratings.csv, movies: movielens/movies.csv}}
  - {{corpus: shopping_queries, name: shop_queries, examples: shopping_queries/shopping_queries_dataset_examples.parquet, products: shopping_queries/shopping_queries_dataset_products.parquet}}
tasks: [user2item, query2item, item2item, sequential_recommendation]
history: {{train_targets_per_user: 4}}
"""  # noqa: E501

_README = """\
# A synthetic shop

Every product, person, film, rating and sentence here is made up: `recfound data generate --reviews {sizes.reviews} --seed {seed}`
wrote it. The files have the raw, published formats of three corpora, so that they are read exactly as the real ones are, and
`recipe.yaml` builds a dataset from them. The same seed and number of reviews give the same bytes.

| files | form | size |
|---|---|---|
| `amazon_reviews_2018/Shop_5.json.gz` | Amazon Reviews 2018, 5-core in its users | {sizes.reviews:,} reviews by {sizes.users:,} users, {sizes.duplicate_reviews:,} of them exact duplicates |
| `amazon_reviews_2018/meta_Shop.json.gz` | Amazon Reviews 2018 metadata | {products:,} of {sizes.items:,} items |
| `movielens/ratings.csv`, `movies.csv` | MovieLens, ml-latest | {sizes.film_ratings:,} ratings by {sizes.film_users:,} users of {sizes.films:,} films |
| `shopping_queries/*.parquet` | Shopping Queries (ESCI) | {judgements:,} judgements of {query_count:,} queries, {products:,} products |

## What is planted to be learnt

- **Items.** {departments} departments, {categories} categories, {kinds} kinds of product, {attributes} attributes. Brands belong to a department, product
  lines to a brand and a category. Titles hold brand, attribute, kind and line; descriptions and features name attribute and
  kind by synonyms, and some name the kind that comes next.
- **Users** have one to three favourite categories, one attribute and one brand a department. A purchase is within the
  favourite categories with probability {tastes.WITHIN_TASTE}, in the same one as before with {tastes.STAY_IN_CATEGORY} or more, and of the kind that
  follows the last one in that category with {tastes.NEXT_STEP} or more (a tent, then a sleeping bag, then a camp stove). Within a kind,
  {tastes.FAVOURITE_ATTRIBUTE:.0%} are of the user's attribute, {tastes.FAVOURITE_BRAND:.0%} of the brand, and popular items come first. Nobody buys an item
  twice, everybody has {REVIEWS_PER_USER} reviews or more, and a user's purchases are at least a day apart.
- **Ratings** are higher within taste and for better items, about 65 % five stars. A review's sentences and summary come from
  the pool of its stars, except {reviews.OTHER_STARS:.0%} whose opening may be of the stars next to it.
- **also_buy**: other kinds of the same category, of the same line first, then of the same brand. **also_view**: the same kind,
  every other one of the same attribute, {relations.OTHER_KIND_VIEWED:.0%} noise. {relations.NONE_LISTED:.0%} of the lists are empty.
- **Queries** ask for a kind and an attribute, mostly by synonyms. E has both, S the kind alone, C is of another kind of the
  category, I of another department. Up to {queries.MOST_EXACT} items are judged E, so further matches may be unjudged.
  {queries.TEST_SHARE:.0%} of the queries are in the official test split.
- **Films** tell their first genre by their titles; {films.SEQUELS:.0%} are sequels. Users have two favourite genres, where
  {films.WITHIN_TASTE:.0%} of their films are from and which they rate higher, and see a sequel after its predecessor with {films.SEQUEL_NEXT}.

## What is planted to be wrong

| what | how many |
|---|---|
| exact duplicate reviews | {sizes.duplicate_reviews:,} |
| reviews without `reviewText` | about {reviews.NO_TEXT:.1%} |
| reviews with an e-mail address or phone number (reserved for examples) | about {reviews.CONTACT:.1%} |
| reviewers' made-up names in `reviewerName` | every review |
| items reviewed but without metadata | {dirt[NO_METADATA]:,} |
| titles that are a piece of script (`getTime`) | {dirt[SCRIPT_TITLE]:,} |
| titles with HTML tags or entities | {dirt[HTML_TITLE]:,} |
| descriptions with HTML tags or entities | {dirt[HTML_DESCRIPTION]:,} |
| descriptions of HTML alone | {dirt[HTML_ONLY_DESCRIPTION]:,} |
| descriptions with an e-mail address or phone number | {dirt[CONTACT_IN_DESCRIPTION]:,} |
| other items without a description | about 5 % |
| empty prices; prices that are a range | about 15 %; 5 % |
| `also_buy` and `also_view` lists that name an item nobody knows | about {relations.ABSENT:.0%} of those not empty |
| films without genre; without year | about {films.NO_GENRE:.1%}; {films.NO_YEAR:.1%} |

The title faults are in the Amazon metadata only; the Shopping Queries products have the same items under clean titles.
"""  # noqa: E501


def readme(sizes: Sizes, seed: int, products: int, query_count: int, judgements: int) -> str:
    """Return the README of a shop, with its actual sizes."""
    return _README.format(
        sizes=sizes,
        seed=seed,
        products=products,
        query_count=query_count,
        judgements=judgements,
        departments=len(DEPARTMENT_NAMES),
        categories=len(CATEGORY_NAMES),
        kinds=len(KINDS),
        attributes=len(ATTRIBUTES),
        dirt={fault.name: faulty_items(fault, sizes.items) for fault in DIRT_RATES},
        tastes=tastes,
        reviews=reviews,
        relations=relations,
        queries=queries,
        films=films,
        REVIEWS_PER_USER=REVIEWS_PER_USER,
    )


def recipe(seed: int) -> str:
    """Return the build recipe of a shop; its paths are relative to the shop's folder."""
    return _RECIPE.format(seed=seed)
