"""Questions on a product that are answered with yes or no, and what reviews and answers say, topic by topic.

Slots: `{noun}`, `{brand}`, `{line}`, `{use}`, and `{n}`, a number that a value fixes for an item. No topic's snippets
answer the question of another one, here or in `question_prose`.
"""

from typing import NamedTuple


class Value(NamedTuple):
    """One way things may stand: the type of answer (`Y`, `N` or `NA`), what reviews and what answers say."""

    answer_type: str
    snippets: tuple[str, ...]
    answers: tuple[str, ...]
    numbers: tuple[int, ...] = (1,)


class Topic(NamedTuple):
    """What a question is about: its wordings, and the ways things may stand."""

    questions: tuple[str, ...]
    values: tuple[Value, ...]

    @property
    def question_type(self) -> str:
        """`yesno` or `descriptive`, as the corpus has it."""
        return "descriptive" if self.values[0].answer_type == "NA" else "yesno"


YES_NO: tuple[Topic, ...] = (
    Topic(
        (
            "Does the {brand} {noun} smell when you first open the box?",
            "Is there a chemical smell to this {noun}?",
            "I am sensitive to odours. Does the {line} smell of anything?",
        ),
        (
            Value(
                "Y",
                (
                    "There was a strong smell of rubber when I opened the box, and it took {n} days to go.",
                    "It smelled like a paint shop at first. I left it by an open window for {n} days.",
                    "My one complaint is the odour. The whole room smelled of plastic for {n} days.",
                ),
                (
                    "Yes, it smells at first, but that goes after {n} days or so.",
                    "It does. Mine smelled for about {n} days, then it was fine.",
                    "Yes. Let it air for {n} days before you use it.",
                ),
                (2, 3, 4, 5, 6, 8, 10),
            ),
            Value(
                "N",
                (
                    "I expected the usual factory smell and there was none at all.",
                    "No odour whatsoever, which matters to me because I get headaches.",
                    "It has no smell, not even right out of the bag.",
                ),
                (
                    "No, I could not smell anything.",
                    "No smell at all, and I am sensitive to such things.",
                    "Not mine, it had no odour even when new.",
                ),
            ),
        ),
    ),
    Topic(
        (
            "Will the {brand} {noun} be ruined if it gets caught in the rain?",
            "Can the {noun} get wet?",
            "I live where it rains a lot. Does water hurt this {noun}?",
        ),
        (
            Value(
                "N",
                (
                    "I left it out in a downpour by mistake and it took no harm.",
                    "It has been through {n} rainy weekends and still looks and works as new.",
                    "Water just runs off it, so I have stopped worrying about the forecast.",
                ),
                (
                    "No, water does nothing to it.",
                    "Not at all. Mine has been rained on {n} times without harm.",
                    "No, it takes rain very well.",
                ),
                (3, 4, 6, 7, 12),
            ),
            Value(
                "Y",
                (
                    "One shower was enough to ruin it, so keep it under a roof.",
                    "Mine swelled up and warped after it got wet once.",
                    "Do not let it get wet. The damp got into ours and it never recovered.",
                ),
                (
                    "Yes, keep it dry. Mine was ruined by one shower.",
                    "It does, I am sorry to say. Ours warped after it got wet.",
                    "Yes, water ruins it.",
                ),
            ),
        ),
    ),
    Topic(
        (
            "Does the {line} {noun} come with a bag or a case?",
            "Is a case for the {noun} included, or do I have to buy one?",
            "Do you get something to store the {noun} in?",
        ),
        (
            Value(
                "Y",
                (
                    "The cotton bag that comes with it keeps the dust off between uses.",
                    "A zipped case is in the box, which I did not expect at this price.",
                    "It ships with a drawstring bag that just about fits.",
                ),
                (
                    "Yes, one is in the box.",
                    "It does, and it fits well enough.",
                    "Yes, you do not need to buy one.",
                ),
            ),
            Value(
                "N",
                (
                    "A case would have been nice, but there is none and I had to buy one.",
                    "It does not come with a bag, so mine lives in an old pillowcase.",
                    "You get the {noun} and nothing to keep it in.",
                ),
                (
                    "No, you have to buy one.",
                    "There is none, I keep mine in an old pillowcase.",
                    "No case and no bag.",
                ),
            ),
        ),
    ),
    Topic(
        (
            "Are the instructions of the {brand} {noun} any good?",
            "Does the {line} come with instructions in English?",
            "Is there a manual with the {noun}?",
        ),
        (
            Value(
                "Y",
                (
                    "The booklet is in plain English with drawings, and I was done in {n} minutes.",
                    "Clear instructions with a picture for each of the {n} steps.",
                    "I followed the English manual and had no trouble at all.",
                ),
                (
                    "Yes, there is a clear booklet with drawings in the box.",
                    "Yes, in English and easy to follow.",
                    "They are good, you will be done in no time.",
                ),
                (5, 6, 8, 9, 10, 12),
            ),
            Value(
                "N",
                (
                    "There is no manual at all, so I searched for videos.",
                    "No instructions came with it and I had to guess how the parts fit.",
                    "I would have liked a leaflet, but the box had none in any language.",
                ),
                (
                    "No, mine came without any.",
                    "There are none, look for a video.",
                    "No manual in any language, I had to guess.",
                ),
            ),
        ),
    ),
    Topic(
        (
            "Is the {noun} the colour that the pictures show?",
            "Does the colour of the {brand} {noun} look like the photo?",
            "How true are the pictures of the {line}?",
        ),
        (
            Value(
                "Y",
                (
                    "The colour is exactly what the photo shows.",
                    "It looks just like the pictures, to the shade.",
                    "I held it next to the screen and the colour was the same.",
                ),
                ("Yes, exactly the same.", "Yes, to the shade.", "It does, mine looks just like the photo."),
            ),
            Value(
                "N",
                (
                    "It is far darker than on my screen, nearly black.",
                    "The colour is much paler than the photo makes you think.",
                    "The shade is off: what came is duller than what I saw online.",
                ),
                (
                    "No, the real thing is a different shade.",
                    "Not really, the photo is misleading.",
                    "No, mine did not look like the photo at all.",
                ),
            ),
        ),
    ),
    Topic(
        (
            "Is the {line} {noun} suitable for a twelve year old?",
            "Could a child use this {noun}?",
            "I am thinking of the {brand} {noun} for my daughter, who is eleven. Would that work?",
        ),
        (
            Value(
                "Y",
                (
                    "My {n} year old uses it alone and loves it.",
                    "We gave it to our son on his birthday; he is {n} and has no trouble with it.",
                    "Even my granddaughter, who is {n}, gets on with it.",
                ),
                (
                    "Yes, my {n} year old uses it without help.",
                    "I think so. Ours is {n} and gets on with it.",
                    "Yes, easily.",
                ),
                (8, 9, 10, 11),
            ),
            Value(
                "N",
                (
                    "It is far too big and stiff for children, my {n} year old gave up.",
                    "Our {n} year old could not manage it at all.",
                    "I would not give it to a child: my son is {n} and he pinched his fingers twice.",
                ),
                (
                    "No, my {n} year old could not manage it.",
                    "I would not. It is made for adults.",
                    "No, wait a few years.",
                ),
                (11, 12, 13),
            ),
        ),
    ),
    Topic(
        (
            "Can you buy spare parts for the {brand} {noun}?",
            "Are replacement parts available for the {line}?",
            "If a piece of the {noun} wears out, can I replace just that piece?",
        ),
        (
            Value(
                "Y",
                (
                    "{brand} sells every part on its own, so I replaced the worn one for {n} dollars.",
                    "A small piece broke, and a spare was {n} dollars from the maker.",
                    "I like that spare parts can be ordered: mine cost {n} dollars.",
                ),
                (
                    "Yes, I got one from {brand} for {n} dollars.",
                    "Yes, they sell every part on its own.",
                    "You can. Mine cost {n} dollars.",
                ),
                (3, 4, 6, 7, 9, 12),
            ),
            Value(
                "N",
                (
                    "When one clip broke I found that no spares are sold, so the whole thing went in the bin.",
                    "There are no replacement parts to be had, I wrote to {brand} to ask.",
                    "You cannot order a single part; I had to buy the whole thing again.",
                ),
                (
                    "No, they do not sell any.",
                    "No. I had to buy the whole thing again.",
                    "I asked, and there are no spare parts.",
                ),
            ),
        ),
    ),
    Topic(
        (
            "Is the {brand} {noun} loud?",
            "Does the {noun} make any noise when you use it?",
            "My baby sleeps next door. Will the {line} wake her?",
        ),
        (
            Value(
                "N",
                (
                    "It makes no sound at all, my dog does not even lift his head.",
                    "Completely silent in use.",
                    "I use it at night next to a sleeping toddler, that is how quiet it is.",
                ),
                ("No, it is silent.", "Not at all, you do not hear it.", "No, you can use it at night."),
            ),
            Value(
                "Y",
                (
                    "It squeaks so loudly that my neighbours complained.",
                    "Be warned, it is noisy: it rattles with every movement.",
                    "The noise is the worst thing about it, a rattle that you hear two rooms away.",
                ),
                ("Yes, it rattles.", "It is, you hear it two rooms away.", "Yes, mine squeaks badly."),
            ),
        ),
    ),
)
