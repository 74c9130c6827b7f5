"""The words of an item: its title, description and features, made from its facts."""

from recfound_data.shop.catalogue import Catalogue, Dirt
from recfound_data.shop.taxonomy import ATTRIBUTES, COLOURS, KINDS, next_kind

_TITLES = (
    "{brand} {attribute} {noun} {line}",
    "{brand} {line} {attribute} {noun}",
    "{attribute} {noun} by {brand}, {line} Series",
)

_OPENINGS = (
    "For {use}, reach for the {attribute} {noun} from {brand}.",
    "Meet the {line}: {brand}'s {attribute} answer to {use}.",
    "{brand} drew up the {line} with {use} in mind and kept the {attribute} {noun} simple.",
    "Few people think about the {noun} until it is time for {use}, and then only the {attribute} one will do.",
    "Made for {use}, the {line} is the {attribute} {noun} that customers kept asking for.",
    "Anyone who cares about {use} will see the worth of the {attribute} {noun}.",
)
_MIDDLES = (
    "Every seam, hinge and edge is checked by hand before it leaves the works.",
    "The {colour} finish hides scratches and goes with the rest of the {line} family.",
    "We tested each {second_noun} through two full seasons and changed nine small details.",
    "Shoppers who look for the {second_attribute} {second_noun} tend to stop looking here.",
    "It arrives ready for use, with a leaflet that fits on one page.",
    "The shape has been the same for years because nobody has found a better one.",
)
_NEXT = (
    "Customers often add the {next} from the same {line} range soon after.",
    "It pairs with {brand}'s {next}, sold separately.",
    "Next on most lists: the {next} that goes with it.",
)
_CARE = (
    "Wipe it down with a damp cloth and keep it dry between uses.",
    "Comes with a two year promise: if it fails, we mend it.",
    "Parts can be bought one at a time, so nothing has to be thrown away.",
    "Packed in plain cardboard without any plastic.",
    "Designed by a team of five who use it themselves.",
)
_FEATURES = (
    "{Attribute} build for {use}",
    "{Second_attribute} {second_noun} in {colour}",
    "Part of the {line} range by {brand}",
    "All that your {noun} should be, from the first day",
    "Two year promise on every part",
    "Tested by {brand} for {use}",
    "{colour} finish that does not fade",
    "Our {second_attribute} choice for {use}",
)
_HTML_DESCRIPTIONS = (
    "<p><b>{line}</b> &amp; friends:<br />{text}</p>",
    "{text}<br><br><ul><li>Ready to use</li><li>Two&nbsp;year promise</li></ul>",
    '<div class="item-text">{text} Customers call it &quot;just right&quot;.</div>',
)
_CONTACTS = (
    "Questions? Write to {box}@example.com and we answer within a day.",
    "Call ({area}) 555-01{number:02d} for spare parts.",
    "Our workshop picks up at {area}-555-01{number:02d}, or write to {box}@example.com.",
)
_MAILBOXES = ("workshop", "care", "hello", "spare.parts", "orders")

SCRIPT_TITLE = 'var shopStart = (new Date()).getTime(); if (window.shop) {{ shop.mark("{asin}", shopStart); }}'
_HTML_TITLES = ("{title} &amp; Case", "<b>{title}</b>", "{title} &quot;Original&quot;", "<span>{title}</span>")


def titles(catalogue: Catalogue) -> list[str]:
    """Return every item's clean title; one that is taken already gets a number, so that no two are the same."""
    made: dict[str, int] = {}
    for index in range(len(catalogue)):
        picks = catalogue.picks[index].tolist()
        title = _TITLES[picks[0] % len(_TITLES)].format(
            brand=catalogue.brand_names[catalogue.brand[index]],
            attribute=ATTRIBUTES[catalogue.attribute[index]].title,
            noun=KINDS[catalogue.kind[index]].titles[picks[1] % 2],
            line=catalogue.line_names[catalogue.line[index]],
        )
        if picks[2] % 2:
            title = f"{title}, {COLOURS[catalogue.colour[index]]}"
        version = 2
        unique = title
        while unique in made:
            unique = f"{title}, No. {version}"
            version += 1
        made[unique] = index
    return list(made)


def listed_title(catalogue: Catalogue, index: int, title: str) -> str:
    """Return the title as the metadata shows it, with what is planted to be wrong with it."""
    dirt = catalogue.dirt[index]
    if dirt == Dirt.SCRIPT_TITLE:
        return SCRIPT_TITLE.format(asin=catalogue.ids[index])
    if dirt == Dirt.HTML_TITLE:
        return _HTML_TITLES[int(catalogue.picks[index, 3]) % len(_HTML_TITLES)].format(title=title)
    return title


def description(catalogue: Catalogue, index: int) -> list[str]:
    """Return the paragraphs that describe an item: none for a few, markup or a contact for some."""
    dirt, picks = catalogue.dirt[index], catalogue.picks[index].tolist()
    if dirt == Dirt.HTML_ONLY_DESCRIPTION:
        return ["<p><br /></p>"]
    if dirt == Dirt.NONE and picks[4] % 20 == 0:
        return []
    facts = _facts(catalogue, index)
    sentences = [_OPENINGS[picks[5] % len(_OPENINGS)], _MIDDLES[picks[6] % len(_MIDDLES)]]
    if picks[7] % 5 < 2:
        sentences.append(_NEXT[picks[8] % len(_NEXT)])
    text = " ".join(sentences).format(**facts)
    care = _CARE[picks[9] % len(_CARE)]
    if dirt == Dirt.HTML_DESCRIPTION:
        text = _HTML_DESCRIPTIONS[picks[10] % len(_HTML_DESCRIPTIONS)].format(text=text, line=facts["line"])
    if dirt == Dirt.CONTACT_IN_DESCRIPTION:
        contact = _CONTACTS[picks[10] % len(_CONTACTS)].format(
            box=_MAILBOXES[picks[11] % len(_MAILBOXES)], area=202 + picks[12] % 700, number=picks[13] % 100
        )
        text = f"{text} {contact}"
    return [text, care] if picks[14] % 2 else [f"{text} {care}"]


def features(catalogue: Catalogue, index: int) -> list[str]:
    """Return the bullet points of an item, none for some."""
    picks = catalogue.picks[index].tolist()
    facts = _facts(catalogue, index)
    first, count = picks[15] % len(_FEATURES), picks[16] % 5
    return [_FEATURES[(first + 3 * place) % len(_FEATURES)].format(**facts) for place in range(count)]


def _facts(catalogue: Catalogue, index: int) -> dict[str, str]:
    kind = int(catalogue.kind[index])
    choose = int(catalogue.picks[index, 17])
    attribute = ATTRIBUTES[catalogue.attribute[index]].synonyms
    noun = KINDS[kind].synonyms
    words, nouns = choose % 3, choose // 3 % 3
    return {
        "brand": catalogue.brand_names[catalogue.brand[index]],
        "line": catalogue.line_names[catalogue.line[index]],
        "colour": COLOURS[catalogue.colour[index]].lower(),
        "use": KINDS[kind].use,
        "attribute": attribute[words],
        "Attribute": attribute[words].capitalize(),
        "second_attribute": attribute[(words + 1) % 3],
        "Second_attribute": attribute[(words + 1) % 3].capitalize(),
        "noun": noun[nouns],
        "second_noun": noun[(nouns + 1) % 3],
        "next": KINDS[next_kind(kind)].titles[choose // 9 % 2].lower(),
    }
