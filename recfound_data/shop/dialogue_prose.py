"""What customers and the shop's assistant say, and the same made self-contained.

Tokens have spaces between them, as in the corpus. Slots: `{item}` is the product as a full mention names it, `{noun}`,
`{brand}`, `{other}` (another brand), `{attribute}`, `{colour}`, `{second}` and `{third}` (other colours), `{use}`,
`{next}` (what is bought next), `{price}`, `{less}`, `{ounces}`, `{day}`, `{later}`.
"""

from typing import NamedTuple


class Exchange(NamedTuple):
    """A customer's turn and the assistant's; a rewrite is empty where the turn is self-contained already."""

    topic: str
    asked: str
    asked_rewrite: str
    told: str
    told_rewrite: str


class Errand(NamedTuple):
    """Why a customer comes: how such dialogues begin, how they mention the product in full, how they go on."""

    mention: str
    openings: tuple[Exchange, ...]
    follow_ups: tuple[Exchange, ...]


BUYING = Errand(
    "{brand} {noun}",
    (
        Exchange(
            "opening",
            "Do you have a {attribute} {noun} in {colour} ?",
            "",
            "Yes , the {item} comes in {colour} .",
            "",
        ),
        Exchange(
            "opening",
            "I am looking for a {attribute} {noun} .",
            "",
            "The {item} is our most popular one .",
            "The {item} is our most popular {attribute} {noun} .",
        ),
        Exchange(
            "opening",
            "Show me the {item} .",
            "",
            "Here it is , in {colour} and in {second} .",
            "Here is the {item} , in {colour} and in {second} .",
        ),
        Exchange(
            "opening",
            "Which {noun} is best for {use} ?",
            "",
            "Most people choose the one from {brand} .",
            "Most people choose the {noun} from {brand} for {use} .",
        ),
        Exchange(
            "opening",
            "Is the {item} back in stock ?",
            "",
            "Yes , it came in on {day} .",
            "Yes , the {item} came in on {day} .",
        ),
        Exchange(
            "opening",
            "My sister keeps talking about the {item} .",
            "",
            "It is the one that we sell most .",
            "The {item} is the {noun} that we sell most .",
        ),
    ),
    (
        Exchange(
            "price",
            "How much is it ?",
            "How much is the {item} ?",
            "It is {price} dollars .",
            "The {item} is {price} dollars .",
        ),
        Exchange(
            "price",
            "And what does it cost ?",
            "And what does the {item} cost ?",
            "{price} dollars .",
            "The {item} costs {price} dollars .",
        ),
        Exchange(
            "colour",
            "And in {third} ?",
            "Do you have the {item} in {third} ?",
            "Sorry , it is sold out in {third} .",
            "Sorry , the {item} is sold out in {third} .",
        ),
        Exchange(
            "colour",
            "Can I get it in {third} as well ?",
            "Can I get the {item} in {third} as well ?",
            "Yes , in {third} too .",
            "Yes , you can get the {item} in {third} too .",
        ),
        Exchange(
            "maker",
            "What else do they make ?",
            "What else does {brand} make ?",
            "They are known for their {next} .",
            "{brand} is known for its {next} .",
        ),
        Exchange(
            "basket",
            "Put it in my basket .",
            "Put the {item} in my basket .",
            "Done , the {item} is in your basket .",
            "",
        ),
        Exchange(
            "basket",
            "I will take two of those .",
            "I will take two of the {item} .",
            "Both are in your basket now .",
            "Two of the {item} are in your basket now .",
        ),
        Exchange(
            "arrival",
            "When could I have it ?",
            "When could I have the {item} ?",
            "By {later} if you order today .",
            "You could have the {item} by {later} if you order today .",
        ),
        Exchange(
            "opinions",
            "What do people say about it ?",
            "What do people say about the {item} ?",
            "They like how sturdy it is .",
            "People like how sturdy the {item} is .",
        ),
        Exchange(
            "opinions",
            "Does anybody complain about it ?",
            "Does anybody complain about the {item} ?",
            "A few find it too expensive .",
            "A few find the {item} too expensive .",
        ),
        Exchange(
            "case",
            "Does it come with a case ?",
            "Does the {item} come with a case ?",
            "No , that is sold separately .",
            "No , the case of the {item} is sold separately .",
        ),
        Exchange(
            "cheaper",
            "Is there a cheaper one ?",
            "Is there a cheaper {noun} than the one from {brand} ?",
            "Yes , {other} has one for {less} dollars .",
            "Yes , {other} has a cheaper {noun} for {less} dollars .",
        ),
        Exchange(
            "comparison",
            "Is the one from {other} better ?",
            "Is the {noun} from {other} better than the {item} ?",
            "It is lighter , but it does not last as long .",
            "The {noun} from {other} is lighter , but it does not last as long as the {item} .",
        ),
        Exchange(
            "return",
            "Can I send it back if I do not like it ?",
            "Can I send the {item} back if I do not like it ?",
            "Yes , within thirty days .",
            "Yes , you can send the {item} back within thirty days .",
        ),
        Exchange(
            "weight",
            "How heavy is it ?",
            "How heavy is the {item} ?",
            "About {ounces} ounces .",
            "The {item} weighs about {ounces} ounces .",
        ),
        Exchange(
            "company",
            "What goes well with that ?",
            "What goes well with the {item} ?",
            "Many people buy the {next} with it .",
            "Many people buy the {next} with the {item} .",
        ),
        Exchange(
            "sundays",
            "Do you deliver on Sundays ?",
            "",
            "Yes , in most towns .",
            "Yes , we deliver on Sundays in most towns .",
        ),
        Exchange("card", "Do you take gift cards ?", "", "Yes , we take all gift cards .", ""),
    ),
)

ORDERED = Errand(
    "{noun}",
    (
        Exchange(
            "opening",
            "Where is the {noun} that I ordered on {day} ?",
            "",
            "It left our warehouse this morning .",
            "The {noun} left our warehouse this morning .",
        ),
        Exchange(
            "opening",
            "Has my {noun} been sent yet ?",
            "",
            "Not yet , it is being packed .",
            "The {noun} has not been sent yet , it is being packed .",
        ),
        Exchange(
            "opening",
            "I ordered the {colour} {noun} and want to know where it is .",
            "",
            "It is on the van .",
            "The {colour} {noun} is on the van .",
        ),
    ),
    (
        Exchange(
            "arrival",
            "When will it be here ?",
            "When will the {item} be here ?",
            "On {later} .",
            "The {item} will be here on {later} .",
        ),
        Exchange(
            "arrival",
            "Will it get here before {later} ?",
            "Will the {item} get here before {later} ?",
            "Yes , it should be .",
            "Yes , the {item} should be here before {later} .",
        ),
        Exchange(
            "neighbour",
            "Can my neighbour take it ?",
            "Can my neighbour take the {item} ?",
            "Yes , just leave us a note .",
            "",
        ),
        Exchange(
            "cancel",
            "Can I still cancel it ?",
            "Can I still cancel the order of the {item} ?",
            "No , it is too late for that .",
            "No , it is too late to cancel the order of the {item} .",
        ),
        Exchange(
            "address",
            "Send it to my office instead .",
            "Send the {item} to my office instead .",
            "I have changed the address .",
            "I have changed the address of the order of the {item} .",
        ),
        Exchange(
            "carrier",
            "Who delivers it ?",
            "Who delivers the {item} ?",
            "Our own drivers do .",
            "Our own drivers deliver the {item} .",
        ),
        Exchange("invoice", "Is the invoice in the box ?", "", "No , we send invoices by mail .", ""),
    ),
)

RETURNING = Errand(
    "{brand} {noun}",
    (
        Exchange(
            "opening",
            "I want to return the {item} .",
            "",
            "What is wrong with it ?",
            "What is wrong with the {item} ?",
        ),
        Exchange(
            "opening",
            "My {item} arrived broken .",
            "",
            "I am sorry . I can send you a new one today .",
            "I am sorry . I can send you a new {item} today .",
        ),
        Exchange(
            "opening",
            "The {item} is not the colour that I ordered .",
            "",
            "Which one did you order ?",
            "Which colour of the {item} did you order ?",
        ),
    ),
    (
        Exchange(
            "postage",
            "Who pays for sending it back ?",
            "Who pays for sending the {item} back ?",
            "We do .",
            "We pay for sending the {item} back .",
        ),
        Exchange(
            "packing",
            "How do I pack it ?",
            "How do I pack the {item} ?",
            "Use the box that it came in .",
            "Use the box that the {item} came in .",
        ),
        Exchange(
            "swap",
            "Can I swap it for a {third} one ?",
            "Can I swap the {item} for a {third} one ?",
            "Of course , the {third} one is in stock .",
            "Of course , the {third} {item} is in stock .",
        ),
        Exchange(
            "money",
            "When do I get my money back ?",
            "When do I get my money back for the {item} ?",
            "Three days after it reaches us .",
            "You get your money back three days after the {item} reaches us .",
        ),
        Exchange(
            "pick_up",
            "Could somebody pick it up on {later} ?",
            "Could somebody pick up the {item} on {later} ?",
            "Yes , in the morning .",
            "Yes , somebody could pick up the {item} on {later} in the morning .",
        ),
        Exchange(
            "receipt",
            "Do I need the receipt for that ?",
            "Do I need the receipt to return the {item} ?",
            "No , your order number is enough .",
            "",
        ),
    ),
)
ERRANDS: tuple[Errand, ...] = (BUYING, BUYING, ORDERED, RETURNING)

MOVES_ON = ("maker", "case", "cheaper", "comparison", "company", "swap")
"""Topics that bring up another product, after which `it` could be either: nothing is asked after them."""
FAREWELLS: tuple[Exchange, ...] = (
    Exchange("farewell", "Thank you , that is all .", "", "You are welcome .", ""),
    Exchange("farewell", "Great , thanks a lot .", "", "Have a good day .", ""),
    Exchange("farewell", "I will think about it .", "I will think about the {item} .", "Take your time .", ""),
)
WEEK: tuple[str, ...] = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
