"""Questions on a product that are not answered with yes or no, and what reviews say that answers none of them."""

from recfound_data.shop.question_topics import YES_NO, Topic, Value

TOPICS: tuple[Topic, ...] = (
    *YES_NO,
    Topic(
        (
            "How do you clean the {brand} {noun}?",
            "What is the best way to clean this {noun}?",
            "Any advice on cleaning the {line}?",
        ),
        (
            Value(
                "NA",
                (
                    "Cleaning is simple: a damp cloth and it looks like new.",
                    "I wipe mine with a wet cloth on Sundays and that is all it takes.",
                    "A damp rag gets the dirt off in a minute.",
                ),
                ("A damp cloth is all you need.", "Just wipe it with a wet cloth.", "I only use a damp rag on mine."),
            ),
            Value(
                "NA",
                (
                    "The soft brush of the vacuum cleaner gets all the dust out of it.",
                    "I run the vacuum cleaner over it on the lowest setting, and that keeps it clean.",
                    "For cleaning I use the vacuum cleaner, since the dust sits in the corners.",
                ),
                (
                    "With the soft brush of a vacuum cleaner.",
                    "Vacuum it on the lowest setting.",
                    "I use the vacuum cleaner on mine and it comes out fine.",
                ),
            ),
            Value(
                "NA",
                (
                    "Do not rub it: a stiff dry brush takes off the dust.",
                    "I go over it with a dry brush, since a cloth scratched my first one.",
                    "A soft dry brush is the only thing I let near it, because cloths leave marks.",
                ),
                (
                    "Use a dry brush, because a cloth scratches it.",
                    "Only with a dry brush. Cloths leave marks.",
                    "Brush it dry, never wipe it.",
                ),
            ),
        ),
    ),
    Topic(
        (
            "How long does the warranty of the {line} {noun} last?",
            "Does {brand} give a guarantee, and for how long?",
            "What happens if the {noun} breaks? How many years of warranty are there?",
        ),
        (
            Value(
                "NA",
                (
                    "It comes with a {n} year warranty, and they honoured mine without fuss.",
                    "The card in the box says {n} years of guarantee.",
                    "What sold me was the {n} year guarantee.",
                ),
                ("{n} years.", "The warranty runs for {n} years.", "There is a {n} year guarantee, keep the receipt."),
                (2, 3, 5, 10),
            ),
            Value(
                "NA",
                (
                    "Be aware that there is no warranty whatsoever, I asked {brand} and they said so.",
                    "It has no guarantee. When mine failed I was on my own.",
                    "I looked for a warranty card and there is none; the shop confirmed it.",
                ),
                ("There is none.", "No warranty at all, I am afraid.", "None. I asked and they give no guarantee."),
            ),
        ),
    ),
    Topic(
        (
            "Where is the {line} made?",
            "Which country does the {noun} come from?",
            "Does anybody know where {brand} makes these?",
        ),
        tuple(
            Value(
                "NA",
                (
                    f"The label says that it is made in {country}.",
                    f"I was glad to read Made in {country} on the underside.",
                    f"It was made in {country}, going by the stamp.",
                ),
                (f"In {country}.", f"The label on mine says {country}.", f"It is made in {country}."),
            )
            for country in ("Portugal", "Canada", "Taiwan", "Denmark", "Vietnam", "Slovenia")
        ),
    ),
    Topic(
        (
            "How many of the {line} come in a pack?",
            "Is this for one {noun} or several?",
            "What quantity do I get for the price of this {brand} {noun}?",
        ),
        (
            Value(
                "NA",
                (
                    "For clarity: you get exactly one in the box.",
                    "I thought it was a set, but only a single one came.",
                    "The price is for one, not for a pair.",
                ),
                ("Just one.", "You get a single one.", "Only one, I had hoped for two."),
            ),
            Value(
                "NA",
                (
                    "There were {n} in the pack, so I gave some away.",
                    "A set of {n}, each wrapped on its own.",
                    "You get {n} of them, which makes each one a bargain.",
                ),
                ("{n} of them.", "It is a set of {n}.", "There are {n} in a pack."),
                (2, 3, 4, 6),
            ),
        ),
    ),
    Topic(
        (
            "How heavy is the {line}?",
            "What does the {noun} weigh?",
            "Can somebody put the {brand} {noun} on a scale and tell me the weight?",
        ),
        (
            Value(
                "NA",
                (
                    "On my kitchen scale it is {n} ounces.",
                    "It weighs {n} ounces, I checked.",
                    "At {n} ounces you hardly notice it.",
                ),
                ("{n} ounces.", "Mine is {n} ounces on the kitchen scale.", "It weighs {n} ounces."),
                (5, 7, 9, 11, 14, 18, 22, 27, 31),
            ),
        ),
    ),
    Topic(
        (
            "How long did delivery of the {noun} take?",
            "I need the {line} soon. How fast does it arrive?",
            "When did your {brand} {noun} arrive after you ordered?",
        ),
        (
            Value(
                "NA",
                (
                    "It was on my doorstep {n} days after I ordered.",
                    "Delivery took {n} days.",
                    "Ordered it and had it {n} days later.",
                ),
                ("{n} days.", "Mine took {n} days.", "It came {n} days after I ordered."),
                (2, 3, 4, 5, 8, 11, 16),
            ),
        ),
    ),
)

BESIDE_THE_POINT: tuple[str, ...] = (
    "I bought it for {use} and would do so again.",
    "My sister has the same one and told me about it.",
    "I gave it four stars because nothing is perfect.",
    "This {noun} replaced one that I had since college.",
    "It was a present for my husband, and he has not put it down.",
    "I had read many reviews before I settled on {brand}.",
    "The {line} range is worth a look in general.",
    "Not bad, though I had hoped for more for {use}.",
    "Everything about it feels thought through.",
    "I regret that I did not order it sooner.",
    "It sits in the hall and everybody asks about it.",
    "My husband says we did not need it, and he uses it more than I do.",
    "I compared a dozen of them before I chose this one.",
    "A friend who knows a lot about {use} recommended it.",
    "For {use} I would not want to be without it.",
    "It is the third thing that I have bought from {brand}.",
    "I have no idea why others complain.",
    "Four months in, it is still a pleasure to use.",
    "It looks more expensive than it was.",
    "My old {noun} was from another maker, and I miss it a little.",
    "We bought it before our holidays and used it every day.",
    "The whole family fights over who gets to use it.",
    "I wrote a longer review, but it was lost.",
    "If you are serious about {use}, look at the {line} range.",
)
"""What reviews say that answers none of the questions."""

SHRUGS: tuple[str, ...] = (
    "Sorry, I gave mine away.",
    "I do not know, I only just ordered it.",
    "Not sure, it was a gift.",
    "Please ask the seller.",
)
